"""``layrfs recover [--scan] [HOST:PORT…]``: a volume brought back on this machine with nothing but its phrase."""

from __future__ import annotations

import argparse
import getpass
import sys
import time

from layrfs import logs
from layrfs.cli.arguments import add_passfile
from layrfs.cli.init import check_network, prepare_volume
from layrfs.cli.passphrase import new_passphrase
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, shown_count
from layrfs.config import DEFAULT_VOLUME, Paths, valid_volume_name
from layrfs.errors import LocalError, NoVolume, UsageError
from layrfs.model.status import ProgressReport

_PHRASE_LIMIT = 4096


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("seeds", metavar="HOST:PORT", nargs="*", help="of any node of the network the volume is on")
    parser.add_argument(
        "--scan", action="store_true", help="when the ordinary way fails: ask every host for all it has of the volume"
    )
    parser.add_argument("--volume", metavar="NAME", default=DEFAULT_VOLUME, help=f"its name here [{DEFAULT_VOLUME}]")
    parser.add_argument("--phrase-file", metavar="FILE", help="read the 24 words there instead of asking for them")
    parser.add_argument("--ask-passphrase", action="store_true", help="protect the key file with a passphrase")
    add_passfile(parser)


def run(arguments: argparse.Namespace) -> int:
    """Nothing of a volume is left behind when that fails, and it can be tried again."""
    import trio

    from layrfs.app.recovering import by_record, recover
    from layrfs.app.scanning import by_scan
    from layrfs.crypto.keys import VolumeKeys
    from layrfs.storage.keyring import save_volume_key

    paths = Paths.from_environment()
    volume, seeds = valid_volume_name(arguments.volume), tuple(arguments.seeds)
    check_network(paths, seeds)
    if volume in paths.volumes():
        raise NoVolume(f"there is a volume {volume!r} already; --volume NAME recovers beside it")
    phrase = _phrase(arguments.phrase_file)
    keys = VolumeKeys.from_phrase(phrase)
    passphrase = new_passphrase(arguments.passfile, ask=arguments.ask_passphrase)
    prepare_volume(paths, volume, seeds)
    logs.configure(paths.log_file(volume), verbose=False)
    with ProgressBar("scanning") as bar:
        way = by_scan(lambda text: bar.show(ProgressReport(text=text))) if arguments.scan else by_record
        recovered = trio.run(recover, paths, volume, keys, say, way)
    save_volume_key(paths.volume_key(volume), phrase, passphrase)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(recovered.time_ms / 1000))
    say(f"{shown_count(recovered.files, 'file')} as of {when}, written by {recovered.device or 'another machine'}")
    if recovered.lost:
        say(f'{shown_count(recovered.lost, "file")} had not reached the network: reading them fails, state "lost"')
    if recovered.older:
        say(f"{shown_count(recovered.older, 'file')} had newer changes there that are lost; the older bytes are here")
    rescued = recovered.rescued
    if rescued.files:
        say(f"{shown_count(rescued.files, 'file')} without a name: see {rescued.directory}/ in the volume")
    if rescued.lost_shards:
        say(f"{shown_count(rescued.lost_shards, 'shard')} of contents could not be fetched; another scan may do better")
    if recovered.held_until_ms:
        free_at = time.strftime("%H:%M", time.localtime(recovered.held_until_ms / 1000 + 60))
        writer = recovered.device or "Another machine"
        say(f"{writer} may still write to it: mount with -o ro, with --take-over, or after {free_at} if it has ended")
    say(f"Volume {volume} is ready: mount.layrfs {volume} MOUNTPOINT")
    return 0


def _phrase(path: str | None) -> str:
    if path is None:
        return getpass.getpass("Recovery phrase: ") if sys.stdin.isatty() else sys.stdin.readline(_PHRASE_LIMIT)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            words = file.read(_PHRASE_LIMIT)
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}") from error
    if not words.strip():
        raise UsageError(f"{path} is empty")
    return words
