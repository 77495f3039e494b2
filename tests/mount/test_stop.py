"""The end of a mount: nothing is lost, nobody hangs, nothing stays mounted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.drive import REPOSITORY, STOP_SECONDS, is_mounted, run, wait_for
from tests.mount.conftest import LocalDrive

HANGING = """
import signal, sys
import pyfuse3, trio
from layrfs.config import MountOptions
from layrfs.fuse import mounting
from layrfs.fuse.attributes import entry_attributes
from layrfs.vfs.inodes import Inode

mounting.STOP_SECONDS = 1.0

class Hanging(pyfuse3.Operations):
    async def getattr(self, inode, ctx):
        return entry_attributes(Inode((1, 0o40755, 0, 0, 2, 0, 4096, 0, 0, 0, 0, None)), 0, 1.0)

    async def statfs(self, ctx):
        return pyfuse3.StatvfsData()

    async def lookup(self, parent, name, ctx):
        await trio.sleep_forever()

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        print("ready", flush=True)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                nursery.cancel_scope.cancel()

async def serve(*, task_status):
    await mounting.serve(Hanging(), sys.argv[1], MountOptions(), source="layrfs:hanging", task_status=task_status)

trio.run(main)
"""


def test_a_request_that_never_ends_does_not_hold_up_the_end(tmp_path: Path) -> None:
    mountpoint = str(tmp_path / "mnt")
    os.mkdir(mountpoint)
    with subprocess.Popen(
        [sys.executable, "-c", HANGING, mountpoint], stdout=subprocess.PIPE, cwd=REPOSITORY, text=True
    ) as drive:
        assert drive.stdout is not None
        assert drive.stdout.readline() == "ready\n"
        with subprocess.Popen(["stat", f"{mountpoint}/anything"], stderr=subprocess.DEVNULL) as asking:
            wait_for(lambda: "S" in state_of(asking.pid) or "D" in state_of(asking.pid), "stat waits")
            drive.send_signal(signal.SIGTERM)
            assert drive.wait(STOP_SECONDS) == 0
            assert asking.wait(STOP_SECONDS) != 0
    assert not is_mounted(mountpoint)


def state_of(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_what_an_open_file_was_given_survives_sigterm(tmp_path: Path) -> None:
    with LocalDrive(str(tmp_path)) as drive:
        handle = os.open(f"{drive.path}/open", os.O_CREAT | os.O_WRONLY)
        os.write(handle, b"not closed, not synced" * 1000)
        assert drive.process is not None
        drive.process.terminate()
        drive.wait_until_over()
        with contextlib.suppress(OSError):  # the file system it belonged to is gone
            os.close(handle)
        drive.mount()
        with open(f"{drive.path}/open", "rb") as file:
            assert file.read() == b"not closed, not synced" * 1000


def test_unmounting_from_outside_ends_the_process(tmp_path: Path) -> None:
    with LocalDrive(str(tmp_path)) as drive:
        run("fusermount3", "-u", drive.path)
        drive.wait_until_over()


def test_a_connection_the_kernel_aborts_ends_the_process_and_leaves_no_mount(tmp_path: Path) -> None:
    if not os.path.exists("/sys/fs/fuse/connections") or os.getuid() != 0:
        pytest.skip("needs root and the control file system of FUSE")
    subprocess.run(["mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections"], check=False, capture_output=True)
    with LocalDrive(str(tmp_path)) as drive:
        device = os.minor(os.stat(drive.path).st_dev)
        with open(f"/sys/fs/fuse/connections/{device}/abort", "w", encoding="ascii") as knob:
            knob.write("1")
        assert drive.process is not None
        started = time.monotonic()
        drive.process.wait(STOP_SECONDS)
        assert time.monotonic() - started < STOP_SECONDS
        assert not is_mounted(drive.path)
