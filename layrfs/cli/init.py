"""``layrfs init``: a new volume; its recovery phrase is shown once, or written to a file."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from layrfs.cli.arguments import add_passfile
from layrfs.cli.passphrase import new_passphrase
from layrfs.config import DEFAULT_VOLUME, NetworkConfig, Paths, parse_address, valid_volume_name
from layrfs.errors import AlreadyExists, LocalError, NoVolume, UsageError

_WORDS_IN_A_ROW = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("--volume", metavar="NAME", default=DEFAULT_VOLUME, help=f"its name [{DEFAULT_VOLUME}]")
    parser.add_argument(
        "--seed",
        metavar="HOST:PORT",
        nargs="+",
        action="extend",
        default=[],
        help="nodes of the network to join; none: five hosts on this machine, to try it out",
    )
    parser.add_argument("--phrase-file", metavar="FILE", help="write the recovery phrase there instead of printing it")
    parser.add_argument("--ask-passphrase", action="store_true", help="protect the key file with a passphrase")
    add_passfile(parser)


def run(arguments: argparse.Namespace) -> int:
    """Create it; nothing is left behind when that fails."""
    paths = Paths.from_environment()
    volume = valid_volume_name(arguments.volume)
    seeds = tuple(arguments.seed)
    check_network(paths, seeds)
    if volume in paths.volumes():
        raise NoVolume(f"there is a volume {volume!r} already; --volume NAME makes another")
    passphrase = new_passphrase(arguments.passfile, ask=arguments.ask_passphrase)
    if arguments.phrase_file is None:
        show_phrase(create_volume(paths, volume, passphrase, seeds))
    else:
        _create_with_phrase_file(paths, volume, passphrase, seeds, arguments.phrase_file)
    sys.stdout.write(f"Volume {volume} is ready: mount.layrfs {volume} MOUNTPOINT\n")
    return 0


def create_volume(paths: Paths, volume: str, passphrase: str | None, seeds: tuple[str, ...] = ()) -> str:
    """Key file and network choice; the new recovery phrase."""
    from layrfs.crypto.keys import new_phrase

    phrase = new_phrase()
    _save(paths, volume, phrase, passphrase, seeds)
    return phrase


def show_phrase(phrase: str) -> None:
    """The one time it is shown without being asked for."""
    sys.stdout.write(f"{phrase_page(phrase)}\n")
    sys.stdout.flush()


def phrase_page(phrase: str) -> str:
    """The words in numbered rows, with what they are for."""
    words = [f"{number:2} {word}" for number, word in enumerate(phrase.split(), start=1)]
    width = max(map(len, words)) + 2
    starts = range(0, len(words), _WORDS_IN_A_ROW)
    rows = ["".join(word.ljust(width) for word in words[start : start + _WORDS_IN_A_ROW]) for start in starts]
    return "\n".join(
        [
            "Your recovery phrase. Write it down: these words alone bring everything back on another machine,",
            "and whoever has them can read everything. They are not shown again unless you ask (layrfs phrase).",
            "",
            *(f"    {row.rstrip()}" for row in rows),
            "",
        ]
    )


def _create_with_phrase_file(
    paths: Paths, volume: str, passphrase: str | None, seeds: tuple[str, ...], phrase_file: str
) -> None:
    from layrfs.crypto.keys import new_phrase

    phrase = new_phrase()
    _write_phrase(phrase_file, phrase)
    try:
        _save(paths, volume, phrase, passphrase, seeds)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(phrase_file)
        raise
    sys.stdout.write(f"The recovery phrase is in {phrase_file}: keep it away from this machine.\n")


def prepare_volume(paths: Paths, volume: str, seeds: tuple[str, ...]) -> None:
    """Directories, and the choice of a network when none was made yet. The key file, saved later, makes it a volume."""
    paths.prepare(volume)
    if NetworkConfig.load(paths.network_file) is None:
        _choose_network(paths, seeds)


def _save(paths: Paths, volume: str, phrase: str, passphrase: str | None, seeds: tuple[str, ...]) -> None:
    from layrfs.storage.keyring import save_volume_key

    prepare_volume(paths, volume, seeds)
    save_volume_key(paths.volume_key(volume), phrase, passphrase)


def _choose_network(paths: Paths, seeds: tuple[str, ...]) -> None:
    if seeds:
        from layrfs.cli.net import join_network

        join_network(paths, seeds)
    else:
        NetworkConfig(network_id=None, seeds=(), embedded=True).save(paths.network_file)


def check_network(paths: Paths, seeds: tuple[str, ...]) -> None:
    """Raises UsageError: volumes of one state directory share a network."""
    paths.check()
    for seed in seeds:
        parse_address(seed)
    network = NetworkConfig.load(paths.network_file)
    if seeds and network is not None and set(seeds) != set(network.seeds):
        where = "the embedded network" if network.embedded else ", ".join(network.seeds)
        raise UsageError(
            f"this machine's volumes are on {where}; `layrfs net join` moves them, LAYRFS_HOME separates them"
        )


def _write_phrase(path: str, phrase: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(phrase + "\n")
            file.flush()
            os.fsync(descriptor)
    except FileExistsError:
        raise AlreadyExists(f"{path} exists already and is not overwritten") from None
    except OSError as error:
        raise LocalError(f"{path} cannot be written: {error.strerror}") from error
