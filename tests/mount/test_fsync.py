"""What fsync, O_SYNC and their relatives wait for: this disk by default, hosts with ``-o fsync=network``."""

import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drive import Drive, HostNetwork, layrfs, run


def fsync(path: str, data: bytes) -> None:
    """write, then fsync."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fdatasync(path: str, data: bytes) -> None:
    """write, then fdatasync."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())


def synchronous(flag: int) -> Callable[[str, bytes], None]:
    """open with O_SYNC or O_DSYNC, write."""

    def write(path: str, data: bytes) -> None:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
        assert os.write(file, data) == len(data)
        os.close(file)

    return write


def msync(path: str, data: bytes) -> None:
    """mmap, store, msync."""
    with open(path, "w+b") as file:
        file.truncate(len(data))
        with mmap.mmap(file.fileno(), len(data)) as memory:
            memory[:] = data
            memory.flush()


WAYS = {
    "fsync": fsync,
    "fdatasync": fdatasync,
    "O_SYNC": synchronous(os.O_SYNC),
    "O_DSYNC": synchronous(os.O_DSYNC),
    "msync": msync,
}


@pytest.mark.parametrize("writeback", ["writeback", "nowriteback"])
def test_with_fsync_network_the_machine_may_burn_when_it_returns(
    hosts: HostNetwork, tmp_path: Path, writeback: str
) -> None:
    options = ["fsync=network", "upload_after=1000", writeback]
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds, options=options) as first:
        for name, write in WAYS.items():
            path = os.path.join(first.path, name)
            write(path, name.encode() * 3000)
            assert first.state(path) == "safe", f"{name} has returned, its bytes are not on hosts"
        first.crash()
        shutil.rmtree(first.home)
    second = Drive(str(tmp_path / "second"), seeds=hosts.seeds, options=["take_over"])
    layrfs(second.home, "recover", "--phrase-file", str(tmp_path / "first" / "phrase"), *hosts.seeds)
    with second:
        for name in WAYS:
            assert Path(second.path, name).read_bytes() == name.encode() * 3000


def test_fsync_of_a_directory_publishes_its_names(hosts: HostNetwork, tmp_path: Path) -> None:
    options = ["fsync=network", "upload_after=1000"]
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds, options=options) as drive:
        os.mkdir(os.path.join(drive.path, "made"))
        directory = os.open(drive.path, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
        status = drive.status()
        assert status["published_version"] >= 1
        assert not status["unpublished"]


def test_syncfs_does_not_reach_file_systems_in_user_space(hosts: HostNetwork, tmp_path: Path) -> None:
    """The README says so. Should a kernel begin to pass it on, we want to know."""
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds, options=["fsync=network", "upload_after=1000"]) as drive:
        path = os.path.join(drive.path, "file")
        Path(path).write_text("text")
        run("sync", "-f", path)
        assert drive.state(path) == "cached"
