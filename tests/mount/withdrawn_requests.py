"""A mount whose clients are killed at the worst moment: poll has said that there is a request, it is not read yet.

    python -m tests.mount.withdrawn_requests MOUNTPOINT

Prints ``answers`` when the mount still answers after all that, and unmounts.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pyfuse3
import trio

from layrfs.config import MountOptions
from layrfs.fuse.mounting import serve
from layrfs.fuse.receiving import devices

CLIENTS = 40
"""trio runs the receiver and us in either order, whichever the dice say: half of them are killed before the read."""


class Statfs(pyfuse3.Operations):
    """Answers the one question that the kernel never answers itself."""

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:  # noqa: ARG002 - pyfuse3's handler
        return pyfuse3.StatvfsData()


async def kill_clients(mountpoint: str) -> None:
    """One after the other, while this task keeps the loop from reading what they ask."""
    for _ in range(CLIENTS):
        with subprocess.Popen(["stat", "-f", "--", mountpoint], stdout=subprocess.DEVNULL) as client:
            select.select(devices(), [], [])  # it has asked
            await trio.lowlevel.checkpoint()  # both the receiver and this task can go on now
            client.kill()
        await trio.lowlevel.checkpoint()  # the receiver, if it has not been on yet


async def main(mountpoint: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **started: serve(Statfs(), mountpoint, MountOptions(), source="test", **started))
        await kill_clients(mountpoint)
        await trio.to_thread.run_sync(os.statvfs, mountpoint)
        print("answers", flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
