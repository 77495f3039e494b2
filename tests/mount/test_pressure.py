"""A cache that is too small: writers are slowed, not failed; without hosts they are told; all else goes on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.drive import Drive, HostNetwork, layrfs, run, wait_for
from tests.trees import MIB, write_stream

CACHE_MIB = 64
MOST_BYTES = (CACHE_MIB + 8) * MIB
"""A block counts up to its last byte, and the kernel writes pages in any order: the end of a block may come before all
else in it and before the end of the block before it, so two count before they are full. Then nobody else gets room."""


def test_copy_several_times_larger_than_the_cache_is_slowed_by_slow_hosts_and_completes(
    hosts: HostNetwork, tmp_path: Path, big: bool
) -> None:
    plain = str(tmp_path / "plain")
    write_stream(plain, (1024 if big else 200) * MIB)
    with Drive(str(tmp_path / "drive"), seeds=hosts.seeds, options=[f"cache_size={CACHE_MIB}M"]) as drive:
        copy = os.path.join(drive.path, "copy")
        with subprocess.Popen(["cp", plain, copy]) as copying:
            wait_for(lambda: len(hosts.piece_files(2)) > 1, "uploads are under way", 60)
            stalled = [process for process in hosts.processes[2:4] if process is not None]
            for process in stalled:  # hosts that accept and then say nothing
                process.send_signal(signal.SIGSTOP)
            os.mkdir(os.path.join(drive.path, "made meanwhile"))
            os.rename(os.path.join(drive.path, "made meanwhile"), os.path.join(drive.path, "renamed"))
            assert sorted(os.listdir(drive.path)) == ["copy", "renamed"]
            assert drive.status()["cached_bytes"] <= MOST_BYTES
            for process in stalled:
                process.send_signal(signal.SIGCONT)
            assert copying.wait(240) == 0
        assert drive.status()["cached_bytes"] <= MOST_BYTES
        run("cmp", plain, copy)  # more than the cache holds comes back as well
        assert drive.status()["cached_bytes"] <= (CACHE_MIB + 32) * MIB


def test_without_hosts_a_full_cache_is_no_space_and_all_else_works_until_they_return(
    hosts: HostNetwork, tmp_path: Path, big: bool
) -> None:
    if not big:
        pytest.skip("waits half a minute for nothing; tests/unit/vfs/test_eviction.py has it in virtual time")
    with Drive(str(tmp_path / "drive"), seeds=hosts.seeds, options=[f"cache_size={CACHE_MIB}M"]) as drive:
        small, large = os.path.join(drive.path, "small"), os.path.join(drive.path, "large")
        Path(small).write_bytes(b"before")
        drive.sync()
        for number in range(5):
            hosts.kill(number)
        with pytest.raises(OSError, match="space") as raised:
            write_stream(large, 2 * CACHE_MIB * MIB)
        assert raised.value.errno == errno.ENOSPC
        assert Path(small).read_bytes() == b"before"
        os.rename(small, small + " renamed")
        os.mkdir(os.path.join(drive.path, "directory"))
        os.unlink(large)
        write_stream(large, CACHE_MIB // 2 * MIB)

        for number in range(5):
            hosts.start(number)
        layrfs(drive.home, "sync", drive.path, check=False)  # tells once that the kernel could not write something
        drive.sync()
        write_stream(large, 3 * CACHE_MIB * MIB, seed=2)
        drive.remount(emptied=True)
        plain = str(tmp_path / "plain")
        write_stream(plain, 3 * CACHE_MIB * MIB, seed=2)
        run("cmp", plain, large)
        assert Path(small + " renamed").read_bytes() == b"before"
