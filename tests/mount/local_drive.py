"""A drive whose hosts are a dictionary, in a process of its own: the real database, cache, file system and FUSE.

    python -m tests.mount.local_drive STATE MOUNTPOINT [OPTIONS [HOSTS]]

Prints ``ready`` when the mount answers, unmounts on SIGTERM. For tests and measurements of the file system alone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

import trio

from layrfs.config import MountOptions
from layrfs.fuse.mounting import serve
from layrfs.fuse.operations import Operations
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree
from layrfs.vfs.contents import Contents
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.inodes import Inodes
from layrfs.vfs.namespace import Namespace
from layrfs.vfs.policies import Policies
from layrfs.vfs.statfs import Space
from tests.fakes.snapshots import FakeSnapshots
from tests.fakes.transfers import FakeTransfers


def space_of(directory: str) -> Space:
    disk = os.statvfs(directory)
    return Space(disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize)


async def drive(state: str, mountpoint: str, options: MountOptions, hosts: int) -> None:
    """Serve until SIGTERM, SIGINT or an unmount."""
    with Database(f"{state}/metadata.db") as database:
        tree, catalog = Tree(database), Catalog(database)
        inodes = Inodes(tree)
        policies = Policies(tree, inodes)
        contents = Contents(
            database=database,
            catalog=catalog,
            cache_directory=f"{state}/cache",
            transfers=FakeTransfers(find_content=catalog.find_content, hosts=hosts),
            block_bytes_of=inodes.block_bytes_of,
            fix_block_bytes=policies.fix_block_bytes,
            cache_bytes=options.cache_bytes or 8 << 30,
        )
        answers = {b"user.layrfs.state": lambda inode: contents.state(inode).encode()}
        space = lambda: space_of(state)  # noqa: E731 - a closure with a name reads better below
        filesystem = Filesystem(database, tree, inodes, contents, space=space, virtual_attributes=answers)
        operations = Operations(Namespace(filesystem, FakeSnapshots()), writeback_cache=options.writeback_cache)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, nursery.cancel_scope)
            await nursery.start(database.run)
            await nursery.start(contents.run)
            filesystem.remove_orphans()
            async with trio.open_nursery() as mounted:
                await mounted.start(_serve, operations, mountpoint, options)
                print("ready", flush=True)
            nursery.cancel_scope.cancel()
        filesystem.close()
        with trio.CancelScope(shield=True):
            await contents.sync(None)
        contents.close()


async def _serve(
    operations: Operations, mountpoint: str, options: MountOptions, *, task_status: trio.TaskStatus[None]
) -> None:
    await serve(operations, mountpoint, options, source="layrfs:test", task_status=task_status)


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _signal in signals:
            scope.cancel()


def main(state: str, mountpoint: str, options: str = "", hosts: str = "5") -> None:
    logging.basicConfig(level=logging.INFO)
    trio.run(drive, state, os.path.realpath(mountpoint), MountOptions.parse(options), int(hosts))


if __name__ == "__main__":
    main(*sys.argv[1:])
