"""``layrfs list [PATH]``: what is in the volume, mounted or not."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator

import msgspec

from layrfs.cli.arguments import add_json, add_passfile, add_volume
from layrfs.cli.places import place_in_volume
from layrfs.cli.rendering import say, say_json, shown_bytes, shown_path
from layrfs.control.client import ControlClient
from layrfs.control.commands import LIST, ListDirectory
from layrfs.model.status import ListEntry


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("path", metavar="PATH", nargs="?", help="a directory [the whole volume]")
    parser.add_argument("-r", "--recursive", action="store_true", help="everything below it")
    add_volume(parser)
    add_passfile(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """One line for each entry; with --json a list."""
    with place_in_volume(arguments.path or "/", arguments.volume, arguments.passfile) as (client, within):
        found = _below(client, within, recursive=arguments.recursive or arguments.path is None)
        if arguments.json:
            say_json([{"path": path, **_fields(entry)} for path, entry in found])
        else:
            for path, entry in found:
                say(_line(path, entry))
    return 0


def _below(client: ControlClient, directory: bytes, *, recursive: bool) -> Iterator[tuple[bytes, ListEntry]]:
    waiting = [directory]
    while waiting:
        parent = waiting.pop()
        below = []
        for entry in _entries(client, parent):
            path = os.path.join(parent, entry.name)
            yield path, entry
            if recursive and entry.kind == "directory":
                below.append(path)
        waiting += reversed(below)


def _entries(client: ControlClient, directory: bytes) -> Iterator[ListEntry]:
    following: int | None = 0
    while following is not None:
        page = client.call(LIST, ListDirectory(directory, following))
        yield from page.entries
        following = page.following


def _fields(entry: ListEntry) -> dict[str, object]:
    fields = msgspec.structs.asdict(entry)
    del fields["name"]
    return fields


def _line(path: bytes, entry: ListEntry) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.mtime_ns / 1e9))
    name = shown_path(path) + ("/" if entry.kind == "directory" else "")
    size = shown_bytes(entry.size) if entry.kind == "file" else entry.kind
    return f"{entry.state:<10} {size:>10}  {when}  {name}"
