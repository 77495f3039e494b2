"""Every way a mount ends: nothing is lost, and what was on no host yet goes out after the next mount."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drive import (
    STOP_SECONDS,
    Drive,
    HostNetwork,
    environment,
    is_mounted,
    kill,
    layrfs,
    processes_of,
    run,
    wait_for,
)
from tests.trees import MIB, source_tree, write_stream

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def tell(number: int) -> Callable[[Drive], None]:
    return lambda drive: kill(drive.process.pid, number) if drive.process is not None else None


def tell_everybody(drive: Drive) -> None:
    """As logging out does, and Ctrl-C: all processes at once."""
    for pid in processes_of(drive.home):
        kill(pid, signal.SIGTERM)


ENDS: dict[str, Callable[[Drive], None]] = {
    **{number.name: tell(number) for number in SIGNALS},
    "logout": tell_everybody,
    "fusermount3": lambda drive: run("fusermount3", "-u", drive.path) and None,
    "umount": lambda drive: run("umount", drive.path) and None,
    "no-wait": lambda drive: drive.umount(wait=False),
}


def test_whatever_ends_the_mount_nothing_is_lost(hosts: HostNetwork, tmp_path: Path) -> None:
    tree = str(tmp_path / "tree")
    source_tree(tree, 40)
    with Drive(str(tmp_path / "drive"), seeds=hosts.seeds, options=["upload_after=60"]) as drive:
        for seed, (name, end) in enumerate(ENDS.items()):
            if name == "umount" and os.getuid() != 0:
                continue
            place = os.path.join(drive.path, name)
            run("cp", "-r", tree, place)
            write_stream(os.path.join(place, "large"), 5 * MIB, seed=seed)
            write_stream(os.path.join(tmp_path, name), 5 * MIB, seed=seed)
            end(drive)
            drive.wait_until_over()
            drive.mount()
            check(drive, tree, str(tmp_path), name)
        assert drive.status()["dirty_bytes"] > 0, "nothing had to be on hosts for that"
        drive.sync()
        drive.remount(emptied=True)
        for name in ENDS:
            check(drive, tree, str(tmp_path), name)


def check(drive: Drive, tree: str, streams: str, name: str) -> None:
    place = os.path.join(drive.path, name)
    run("cmp", os.path.join(streams, name), os.path.join(place, "large"))
    run("diff", "-r", "--exclude=large", tree, place)


def test_a_mount_outlives_the_shell_that_started_it(tmp_path: Path) -> None:
    home, mountpoint = str(tmp_path / "home"), str(tmp_path / "mnt")
    os.makedirs(mountpoint)
    layrfs(home, "init", "--phrase-file", str(tmp_path / "phrase"))
    mount = f"{sys.executable} -m layrfs.cli.main mount {mountpoint}"
    script = f"{mount}; echo mounted; exec sleep 1000"
    shell = subprocess.Popen(
        ["sh", "-c", script], env=environment(home), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "mounted\n"
        os.killpg(shell.pid, signal.SIGHUP)  # what a terminal that is closed does to those in it
        shell.wait()
        shell.stdout.close()
        Path(mountpoint, "file").write_bytes(b"still here")
        layrfs(home, "umount", mountpoint)
        assert not is_mounted(mountpoint)
        wait_for(lambda: not processes_of(home), "every process ended")
    finally:
        kill(shell.pid)
        if is_mounted(mountpoint):
            subprocess.run(["fusermount3", "-uz", mountpoint], check=False)
        for pid in processes_of(home):
            kill(pid)


def test_umount_that_waits_can_be_interrupted_and_says_what_is_then(tmp_path: Path) -> None:
    with HostNetwork(str(tmp_path / "hosts"), 3) as hosts, Drive(str(tmp_path / "drive"), seeds=hosts.seeds) as drive:
        path = os.path.join(drive.path, "file")
        for number in range(3):
            hosts.kill(number)
        Path(path).write_bytes(b"on no host")
        command = [sys.executable, "-m", "layrfs.cli.main", "umount", "--wait", drive.path]
        waiting = subprocess.Popen(command, env=environment(drive.home), cwd="/", stderr=subprocess.PIPE, text=True)
        wait_for(lambda: is_connected(waiting.pid), "it has asked the drive")
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3)
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=STOP_SECONDS)
        assert waiting.returncode == 130
        assert f"{drive.path} stays mounted" in said
        assert len(said.splitlines()) == 1
        assert Path(path).read_bytes() == b"on no host"
        assert drive.state(path) in {"cached", "uploading"}
        drive.umount(wait=False)
        for number in range(3):
            hosts.start(number)
        drive.mount()
        wait_for(lambda: drive.state(path) == "safe", lambda: f"goes out after the next mount: {drive.state(path)}")


def is_connected(pid: int) -> bool:
    """Whether a process has a socket."""
    files = f"/proc/{pid}/fd"
    return any(
        os.path.realpath(f"{files}/{number}").rpartition("/")[2].startswith("socket:") for number in os.listdir(files)
    )
