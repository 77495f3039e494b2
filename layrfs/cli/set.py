"""``layrfs set PATH redundancy=rs:4/8 sharding=count:8``: policies of a path and of everything below it.

Of a mountpoint also what hosts are paid at most: ``layrfs set MOUNTPOINT max_price=2 budget=10``.

Files get another redundancy in the background, after this has returned; ``layrfs status PATH`` says how much is left.
Without assignments the policy in force is printed.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys

from layrfs.cli.arguments import add_json
from layrfs.cli.locating import MountedPath, mounted_path
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json, shown_bytes, shown_count
from layrfs.control.commands import (
    GET_SPENDING,
    PATH_STATUS,
    SET_POLICIES,
    SET_SPENDING,
    AtPath,
    Nothing,
    SetPolicies,
    SetSpending,
)
from layrfs.errors import UsageError
from layrfs.model.lumens import parse_lumens, shown_lumens
from layrfs.model.redundancy import Redundancy
from layrfs.model.sharding import Sharding
from layrfs.model.status import PoliciesSet, SpendingLimit

_PARSERS = {"redundancy": Redundancy.parse, "sharding": Sharding.parse}
_LIMITS = ("max_price", "budget")
_OFF = "off"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("path", metavar="PATH", help="below a mountpoint; of a directory, also all that is in it")
    parser.add_argument(
        "policies",
        metavar="NAME=VALUE",
        nargs="*",
        help="redundancy=mirror:3 (copies), redundancy=rs:4/8 (any 4 of 8 pieces), sharding=size:4M, sharding=count:8;"
        " of a mountpoint also max_price=2 (XLM for a TiB and 30 days; dearer hosts get nothing; off: nobody is paid)"
        " and budget=10 (XLM for 30 days; off: any)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises UsageError before anything is changed."""
    chosen = dict(_parsed(word) for word in arguments.policies)
    place = mounted_path(arguments.path)
    limits = {name: chosen.pop(name) for name in _LIMITS if name in chosen}
    if limits and place.within != b"/":
        raise UsageError(f"{arguments.path} is not the mountpoint: what hosts are paid is set for a whole volume")
    if chosen:
        _set(place, chosen)
    if limits:
        place.client.call(SET_SPENDING, SetSpending(limits.get("max_price", ""), limits.get("budget", "")))
    if not arguments.policies or arguments.json:
        _show(arguments.path, place, as_json=arguments.json)
    return 0


def _parsed(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if equals and name in _LIMITS:
        return name, value if value == _OFF else shown_lumens(parse_lumens(value))
    if not equals or name not in _PARSERS:
        raise UsageError(
            f"{word!r} is no policy: redundancy=mirror:N, redundancy=rs:K/N, sharding=size:N,"
            " sharding=count:N, max_price=XLM or budget=XLM"
        )
    return name, str(_PARSERS[name](value))


def _set(place: MountedPath, chosen: dict[str, str]) -> None:
    request = SetPolicies(place.within, chosen.get("redundancy", ""), chosen.get("sharding", ""))
    with ProgressBar("setting") as bar:
        done = place.client.call(SET_POLICIES, request, bar.show)
    for note in notes(done, chosen.get("redundancy")):
        sys.stderr.write(f"layrfs set: {note}\n")


def notes(done: PoliciesSet, redundancy: str | None) -> list[str]:
    """What somebody might not expect."""
    said = []
    if done.cut_files:
        said.append(f"cut into blocks as before, because bytes are in them: {shown_count(done.cut_files, 'file')}")
    wanted = None if redundancy is None else Redundancy.parse(redundancy)
    if wanted is not None and done.hosts < wanted.needed:
        said.append(
            f"{wanted} needs {wanted.needed} hosts at least and there are {done.hosts}: until there are more, "
            "what is written waits on this machine, and what hosts have stays as it is"
        )
    elif wanted is not None and done.hosts < wanted.total:
        said.append(f"{wanted} is for {wanted.total} hosts and there are {done.hosts}: the rest follows when there are")
    return said


def _show(path: str, place: MountedPath, *, as_json: bool) -> None:
    found = {name: value for name in _PARSERS if (value := _get(path, name)) is not None}
    if place.within == b"/":
        found |= shown_limits(place.client.call(GET_SPENDING, Nothing()))
    if as_json:
        say_json(found)
        return
    say(*(f"{name}={value}" for name, value in found.items()))
    status = place.client.call(PATH_STATUS, AtPath(place.within))
    if status.otherwise_bytes:
        say(f"{shown_bytes(status.otherwise_bytes)} are on hosts in another redundancy")


def shown_limits(limits: SpendingLimit) -> dict[str, str]:
    """As they are set."""
    values = {"max_price": limits.max_price, "budget": limits.budget}
    return {name: _OFF if stroops is None else shown_lumens(stroops) for name, stroops in values.items()}


def _get(path: str, name: str) -> str | None:
    try:
        return os.getxattr(path, f"user.layrfs.{name}").decode()
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise
