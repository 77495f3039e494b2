"""``layrfs fsck [--repair] [--deep]``: a volume that is not mounted, against itself and against its hosts.

Exit codes: 0 nothing is wrong; 15 something was, and all of it is repaired; 1 something is.
"""

from __future__ import annotations

import argparse
import sys

from layrfs import logs
from layrfs.cli import exit_codes
from layrfs.cli.arguments import add_json, add_passfile, add_volume
from layrfs.cli.locating import chosen_volume
from layrfs.cli.passphrase import asker
from layrfs.cli.rendering import say, say_json
from layrfs.config import Paths
from layrfs.logs import printable
from layrfs.model.findings import CheckReport

_MARKS = {"note": "note", "problem": "PROBLEM", "lost": "LOST"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("--repair", action="store_true", help="put right what can be; deletes the last copy of nothing")
    parser.add_argument("--deep", action="store_true", help="fetch and verify every shard, and read all of the cache")
    add_volume(parser)
    add_passfile(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises StateInUse when the volume is mounted."""
    import trio

    from layrfs.app.checking import check
    from layrfs.storage.keyring import load_volume_key

    paths = Paths.from_environment()
    paths.check()
    volume = chosen_volume(paths, arguments.volume)
    keys = load_volume_key(paths.volume_key(volume), asker(arguments.passfile))
    paths.prepare(volume)
    logs.configure(paths.log_file(volume), verbose=False)

    async def checked() -> CheckReport:
        return await check(paths, volume, keys, repair=arguments.repair, deep=arguments.deep, say=_mention)

    report = trio.run(checked)
    if arguments.json:
        say_json(report)
    else:
        _show(volume, report, repair=arguments.repair)
    return _exit_code(report)


def _mention(sentence: str) -> None:
    """On the way, for a person; standard output is the report's."""
    sys.stderr.write(f"{printable(sentence)}\n")


def _show(volume: str, report: CheckReport, *, repair: bool) -> None:
    for finding in report.findings:
        say(f"{_MARKS[finding.severity]:>8}  {printable(finding.text)}")
    for sentence in report.repairs:
        say(f"      ->  {printable(sentence)}")
    if report.is_sound:
        say(f"volume {volume} is {'sound again' if report.repairs else 'sound'}")
        return
    for finding in report.left if report.repairs else ():
        say(f"   still  {printable(finding.text)}")
    if not repair and any(finding.repairable for finding in report.left):
        say(f"layrfs fsck --repair --volume {volume} repairs what can be")


def _exit_code(report: CheckReport) -> int:
    if not report.is_sound:
        return exit_codes.FAILED
    return exit_codes.REPAIRED if any(one.severity != "note" for one in report.findings) else exit_codes.DONE
