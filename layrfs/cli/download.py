"""``layrfs download MANIFEST -o OUT``: fetch a manifest's file from the hosts."""

from __future__ import annotations

import argparse
import os
import sys

from layrfs.cli.arguments import add_json, add_passfile, add_volume
from layrfs.cli.locating import node_for
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json, shown_bytes
from layrfs.control.commands import DOWNLOAD, Download
from layrfs.errors import AlreadyExists, BadMessage, NotFound
from layrfs.model.manifest import LIMIT_BYTES, Manifest


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("manifest", metavar="MANIFEST", help="a file from `layrfs manifest`, or - for standard input")
    parser.add_argument("-o", "--output", metavar="OUT", help="where to [the manifest's file name, here]")
    parser.add_argument("--replace", action="store_true", help="overwrite what is there")
    add_volume(parser)
    add_passfile(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Returns when the whole file is on this disk, checked."""
    text = _read(arguments.manifest)
    manifest = Manifest.from_json_untrusted(text)
    output = _output(arguments.output, manifest.file_name, replace=arguments.replace)
    request = Download(text.decode(), output, arguments.replace)
    with node_for(arguments.volume, arguments.passfile, reading=True) as client, ProgressBar("downloading") as bar:
        fetched = client.call(DOWNLOAD, request, bar.show)
    if arguments.json:
        say_json(fetched)
    else:
        say(f"{os.fsdecode(output)}  {shown_bytes(fetched.size)}")
    return 0


def _read(name: str) -> bytes:
    """At most a little more than a manifest may have; checking says the rest."""
    if name == "-":
        return sys.stdin.buffer.read(LIMIT_BYTES + 1)
    try:
        with open(name, "rb") as file:
            return file.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no {name}") from None
    except IsADirectoryError:
        raise BadMessage(f"{name} is a directory, not a manifest") from None


def _output(name: str | None, file_name: bytes, *, replace: bool) -> bytes:
    output = os.path.abspath(os.fsencode(name) if name else file_name)
    if os.path.isdir(output):
        output = os.path.join(output, file_name)
    if not os.path.isdir(os.path.dirname(output)):
        raise NotFound(f"there is no directory {os.fsdecode(os.path.dirname(output))}")
    if os.path.lexists(output) and not replace:
        raise AlreadyExists(f"{os.fsdecode(output)} exists already; --replace overwrites it")
    return output
