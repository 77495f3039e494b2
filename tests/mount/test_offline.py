"""The network goes, and comes back: what is here is used, what is not is an error in time, nothing waiting is lost."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from tests.drive import Drive, HostNetwork, layrfs, run, wait_for
from tests.trees import MIB, write_stream

EIO_SECONDS = 120.0
"""The drive's own patience with hosts is 20 seconds, and what it needs on a busy machine; a read that hangs does so for
ten minutes."""


def test_without_network_what_is_here_is_used_and_all_goes_out_when_hosts_return(
    hosts: HostNetwork, tmp_path: Path
) -> None:
    plain, later = str(tmp_path / "plain"), str(tmp_path / "later")
    write_stream(plain, 10 * MIB)
    write_stream(later, 10 * MIB, seed=2)
    with Drive(str(tmp_path / "drive"), seeds=hosts.seeds, options=["upload_after=0"]) as drive:
        kept, gone = (os.path.join(drive.path, name) for name in ("kept", "gone"))
        os.mkdir(kept)
        run("cp", plain, os.path.join(kept, "file"))
        run("cp", plain, gone)
        run("dd", "if=/dev/urandom", f"of={gone}", "conv=notrunc", "bs=1M", "count=10", "status=none")
        layrfs(drive.home, "pin", kept)
        drive.sync()
        drive.remount(emptied=True)  # the kernel's memory as well
        layrfs(drive.home, "pin", "--wait")
        assert os.getxattr(os.path.join(kept, "file"), "user.layrfs.pinned") == b"yes"
        assert os.getxattr(gone, "user.layrfs.pinned") == b"no"

        for number in range(5):
            hosts.kill(number)
        run("cmp", plain, os.path.join(kept, "file"))
        started = time.monotonic()
        with pytest.raises(OSError, match="error") as raised, open(gone, "rb") as file:
            file.read(10)
        assert raised.value.errno == errno.EIO
        assert time.monotonic() - started < EIO_SECONDS
        run("cp", later, os.path.join(drive.path, "written offline"))
        with open(os.path.join(kept, "file"), "r+b") as file:
            file.write(b"changed offline")
            os.fsync(file.fileno())
        assert sorted(os.listdir(drive.path)) == ["gone", "kept", "written offline"]

        drive.umount(wait=False)
        drive.mount()
        run("cmp", later, os.path.join(drive.path, "written offline"))
        assert drive.status()["dirty_bytes"] >= 10 * MIB, "the queue outlives the mount"

        for number in range(5):
            hosts.start(number)
        wait_for(
            lambda: drive.status()["dirty_bytes"] == 0, lambda: f"uploads go on by themselves: {drive.status()}", 90
        )
        drive.sync()
        drive.remount(emptied=True)
        run("cmp", later, os.path.join(drive.path, "written offline"))
        with open(os.path.join(kept, "file"), "rb") as file:
            assert file.read(20).startswith(b"changed offline")
        with open(gone, "rb") as file:
            assert len(file.read()) == 10 * MIB
