"""A drive whose hosts are behind a slow line: all of it arrives, and comes back."""

import filecmp
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.drive import Drive, HostNetwork, run
from tests.trees import MIB, write_stream

HERE, THERE = "10.213.77.1", "10.213.77.2"


NAME, NEAR, FAR = f"layrfs-{os.getpid()}", f"ly{os.getpid()}a", f"ly{os.getpid()}b"


def slow_down(megabits: int, end: str, *inside: str) -> None:
    """Have what leaves by one end of the line be slow."""
    rate = ("rate", f"{megabits}mbit", "burst", "64kb", "latency", "200ms")
    run(*inside, "tc", "qdisc", "replace", "dev", end, "root", "tbf", *rate)


@contextmanager
def line(megabits: int) -> Iterator[str]:
    """A network namespace at the far end of such a line; its name. What goes there is slow, what comes is not."""
    name, near, far = NAME, NEAR, FAR
    try:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        run("ip", "address", "add", f"{HERE}/30", "dev", near)
        run("ip", "link", "set", near, "up")
        run("ip", "-n", name, "address", "add", f"{THERE}/30", "dev", far)
        run("ip", "-n", name, "link", "set", far, "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        slow_down(megabits, near)
        yield name
    finally:
        subprocess.run(["ip", "link", "del", near], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def is_possible() -> bool:
    """Whether this machine lets us make such a line."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")):
        return False
    try:
        with line(100):
            return True
    except AssertionError:
        return False


@pytest.mark.skipif(not is_possible(), reason="needs root, network namespaces and tc")
def test_everything_arrives_over_a_slow_line(tmp_path: Path, big: bool) -> None:
    megabits, size = (1, 4 * MIB) if big else (20, 8 * MIB)
    with line(megabits) as name:
        network = HostNetwork(str(tmp_path / "hosts"), 3, address=THERE, inside=["ip", "netns", "exec", name])
        with network, Drive(str(tmp_path / "drive"), seeds=network.seeds) as drive:
            path = os.path.join(drive.path, "file")
            write_stream(path, size)
            drive.sync()
            assert drive.state(path) == "safe"
            assert sum(len(network.piece_files(number)) for number in range(3)) >= 3 * size // (4 * MIB)
            log = Path(drive.home, "volumes").rglob("*.log")
            assert not [line for path in log for line in path.read_text().splitlines() if "uploads pause" in line]


@pytest.mark.skipif(not is_possible(), reason="needs root, network namespaces and tc")
def test_everything_comes_back_over_a_slow_line_and_once(tmp_path: Path, big: bool) -> None:
    megabits, size, most = (2, 16 * MIB, 2.0) if big else (20, 24 * MIB, 1.25)
    with line(1000) as name:
        inside = ["ip", "netns", "exec", name]
        network = HostNetwork(str(tmp_path / "hosts"), 3, address=THERE, inside=inside)
        with network, Drive(str(tmp_path / "drive"), seeds=network.seeds) as drive:
            path, plain = os.path.join(drive.path, "file"), str(tmp_path / "plain")
            for each in (path, plain):
                write_stream(each, size)
            drive.sync()
            drive.remount(emptied=True)
            slow_down(megabits, FAR, *inside)
            before = received_bytes()
            assert filecmp.cmp(path, plain, shallow=False)
            assert received_bytes() - before < most * size


def received_bytes() -> int:
    """What has come over the line."""
    return int(Path(f"/sys/class/net/{NEAR}/statistics/rx_bytes").read_text())
