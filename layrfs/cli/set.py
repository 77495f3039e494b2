"""``layrfs set PATH redundancy=mirror:N sharding=count:8``: policy of a file or directory, kept as extended attributes.

What is below a directory and made later follows it; without assignments the policy in force is printed.
"""

from __future__ import annotations

import argparse
import errno
import os

from layrfs.cli.arguments import add_json
from layrfs.cli.locating import mounted_path
from layrfs.cli.rendering import say, say_json
from layrfs.errors import FileError, UsageError
from layrfs.model.redundancy import Redundancy
from layrfs.model.sharding import Sharding

_PARSERS = {"redundancy": Redundancy.parse, "sharding": Sharding.parse}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("path", metavar="PATH", help="below a mountpoint")
    parser.add_argument(
        "policies", metavar="NAME=VALUE", nargs="*", help="redundancy=mirror:3, sharding=size:4M, sharding=count:8"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises UsageError before anything is changed."""
    chosen = dict(_parsed(word) for word in arguments.policies)
    mounted_path(arguments.path)
    for name, value in chosen.items():
        _set(arguments.path, name, value)
    if not chosen or arguments.json:
        _show(arguments.path, as_json=arguments.json)
    return 0


def _parsed(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or name not in _PARSERS:
        raise UsageError(f"{word!r} is no policy: redundancy=mirror:N, sharding=size:N or sharding=count:N")
    return name, str(_PARSERS[name](value))


def _set(path: str, name: str, value: str) -> None:
    try:
        os.setxattr(path, f"user.layrfs.{name}", value.encode())
    except OSError as error:
        raise FileError(f"{name} of {path} cannot be set: {error.strerror}") from error


def _show(path: str, *, as_json: bool) -> None:
    found = {name: value for name in _PARSERS if (value := _get(path, name)) is not None}
    if as_json:
        say_json(found)
    else:
        say(*(f"{name}={value}" for name, value in found.items()))


def _get(path: str, name: str) -> str | None:
    try:
        return os.getxattr(path, f"user.layrfs.{name}").decode()
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise
