"""``layrfs cache show|drop``: what this machine keeps of the volume; make it forget what the network has."""

from __future__ import annotations

import argparse

from layrfs.cli.arguments import add_json, add_passfile, add_volume
from layrfs.cli.locating import node_for
from layrfs.cli.rendering import say, say_json, shown_bytes
from layrfs.control.client import ControlClient
from layrfs.control.commands import CACHE_DROP, STATUS, Nothing
from layrfs.model.status import CacheDropped, VolumeStatus


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("action", choices=["show", "drop"], help="show what is kept, or drop what is safe on hosts")
    add_volume(parser)
    add_passfile(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Mounted or not."""
    with node_for(arguments.volume, arguments.passfile, reading=True) as client:
        answer = _drop(client) if arguments.action == "drop" else client.call(STATUS, Nothing())
    if arguments.json:
        say_json(answer if isinstance(answer, CacheDropped) else _cache_part(answer))
    elif isinstance(answer, CacheDropped):
        kept = f"; {shown_bytes(answer.kept_dirty_bytes)} kept, not on hosts yet" if answer.kept_dirty_bytes else ""
        pinned = f"; {shown_bytes(answer.kept_pinned_bytes)} kept, pinned" if answer.kept_pinned_bytes else ""
        say(f"dropped {shown_bytes(answer.dropped_bytes)}{kept}{pinned}")
    else:
        say(
            f"{shown_bytes(answer.cached_bytes)} of at most {shown_bytes(answer.cache_limit_bytes)} are kept here, "
            f"{shown_bytes(answer.dirty_bytes)} of it not on the network yet"
        )
    return 0


def _drop(client: ControlClient) -> CacheDropped:
    return client.call(CACHE_DROP, Nothing())


def _cache_part(status: VolumeStatus) -> dict[str, int]:
    return {
        "cached_bytes": status.cached_bytes,
        "cache_limit_bytes": status.cache_limit_bytes,
        "dirty_bytes": status.dirty_bytes,
    }
