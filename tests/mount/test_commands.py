"""The commands on a real drive: mounting in the background and by mount(8)'s rules, unmounting, what is in the way."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.cli.passphrase import VARIABLE
from tests.drive import is_mounted, kill, processes_of, wait_for
from tests.shell import REPOSITORY, Shell


class Machine(Shell):
    """A shell with a mountpoint; ``close`` leaves nothing behind."""

    @property
    def mountpoint(self) -> str:
        return str(self.home.parent / "mnt")

    @property
    def is_mounted(self) -> bool:
        return is_mounted(self.mountpoint)

    def mount(self, *arguments: str) -> None:
        done = self.run(self.mountpoint, *arguments, module="mount")
        assert (done.returncode, done.stderr) == (0, "")
        assert self.is_mounted

    def file(self, name: str) -> Path:
        return Path(self.mountpoint) / name

    def close(self) -> None:
        if self.is_mounted:
            subprocess.run(["fusermount3", "-uz", self.mountpoint], check=False, capture_output=True)
        for process in processes_of(str(self.home)):
            kill(process, signal.SIGTERM)
        try:
            wait_for(lambda: not processes_of(str(self.home)), "every process ended")
        finally:
            for process in processes_of(str(self.home)):
                kill(process)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "home")
    os.mkdir(machine.mountpoint)
    machine.succeeds("init", "--phrase-file", str(tmp_path / "phrase"))
    yield machine
    machine.close()


def test_in_the_background_and_back(machine: Machine) -> None:
    machine.mount()
    machine.file("note").write_text("hello")
    assert machine.mountpoint in machine.succeeds("status")
    machine.fails(4, "already mounted", machine.mountpoint, module="mount")
    elsewhere = machine.home.parent / "elsewhere"
    elsewhere.mkdir()
    machine.fails(9, f"mounted at {machine.mountpoint}", str(elsewhere), module="mount")
    assert "everything is on hosts" in machine.succeeds("sync", str(machine.file("note")))
    path = json.loads(machine.succeeds("status", str(machine.file("note")), "--json"))
    assert (path["path"], path["state"], path["size"]) == ("/note", "safe", 5)
    assert machine.succeeds("umount", machine.mountpoint) == ""
    assert not machine.is_mounted
    assert processes_of(str(machine.home)) == {}
    machine.fails(3, "is not mounted", "umount", machine.mountpoint)


def test_numbers_for_prometheus_by_command_and_by_http(machine: Machine) -> None:
    machine.mount()
    machine.file("one").write_bytes(b"1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.connect(os.getxattr(machine.mountpoint, "user.layrfs.control"))
        asking.sendall(b"GET /metrics HTTP/1.1\r\nHost: drive\r\n\r\n")
        with asking.makefile("rb") as answer:
            head, _, page = answer.read().decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    for text in (page, machine.succeeds("metrics")):
        assert 'layrfs_files{volume="default"} 1\n' in text
        assert 'layrfs_reachable_hosts{volume="default"}' in text


def test_by_the_rules_of_mount8_and_remounted_at_once(machine: Machine) -> None:
    options = "rw,nosuid,nodev,noatime,_netdev,nofail,x-systemd.automount,cache_size=1G"
    for number in range(3):
        done = machine.run("default", machine.mountpoint, "-o", options, "-n", "-s", module="mount")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        machine.file(f"file{number}").write_text("x")
        assert sorted(os.listdir(machine.mountpoint)) == [f"file{each}" for each in range(number + 1)]
        subprocess.run(["fusermount3", "-u", machine.mountpoint], check=True)


def test_a_mount_waits_for_the_last_drive_to_let_go(machine: Machine) -> None:
    command = [sys.executable, "-m", "layrfs.cli.mount", machine.mountpoint]
    lock = machine.home / "volumes" / "default" / "lock"
    with open(lock, "wb") as last_drive:
        fcntl.flock(last_drive, fcntl.LOCK_EX)
        process = subprocess.Popen(command, env=machine.environment(), cwd="/")
        wait_for(lambda: holds_open(process.pid, str(lock)), "the mount waits for the lock")
        assert process.poll() is None
        assert not machine.is_mounted
    assert process.wait(240) == 0
    assert machine.is_mounted


def holds_open(process: int, path: str) -> bool:
    files = f"/proc/{process}/fd"
    return any(os.path.realpath(f"{files}/{number}") == path for number in os.listdir(files))


def test_a_busy_mountpoint_names_who_is_there(machine: Machine) -> None:
    machine.mount()
    with subprocess.Popen([sys.executable, "-c", "input()"], cwd=machine.mountpoint, stdin=subprocess.PIPE) as user:
        machine.fails(4, f"({user.pid})", "umount", machine.mountpoint)
        assert machine.is_mounted
        user.communicate(b"\n")
    machine.succeeds("umount", machine.mountpoint)


def test_what_a_killed_drive_left_is_explained_and_cleaned(machine: Machine) -> None:
    machine.mount()
    machine.file("kept").write_text("kept")
    machine.succeeds("sync", machine.mountpoint)
    kill(json.loads(machine.succeeds("status", "--json"))["pid"])
    wait_for(lambda: not processes_of(str(machine.home)), "children ended")
    machine.fails(4, "left over from a drive that died", machine.mountpoint, module="mount")
    machine.fails(3, "has ended", "status", machine.mountpoint)
    assert "left over" in machine.run("doctor").stdout
    machine.mount("--clean")
    assert machine.file("kept").read_text() == "kept"
    kill(json.loads(machine.succeeds("status", "--json"))["pid"])
    wait_for(lambda: not processes_of(str(machine.home)), "children ended")
    assert "is clean now" in machine.succeeds("umount", machine.mountpoint)
    assert not machine.is_mounted


def test_the_classic_interface_without_a_mount_and_with_one(machine: Machine, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "in").write_bytes(content)
    assert "safe" in machine.succeeds("upload", str(tmp_path / "in"))
    assert [entry["path"] for entry in json.loads(machine.succeeds("list", "--json"))] == ["/in"]
    (tmp_path / "in.json").write_text(machine.succeeds("manifest", "/in"))
    machine.succeeds("cache", "drop")
    machine.succeeds("download", str(tmp_path / "in.json"), "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == content
    assert processes_of(str(machine.home)) == {}
    machine.mount()
    assert machine.file("in").read_bytes() == content
    assert json.loads(machine.succeeds("manifest", str(machine.file("in"))))["fileName"] == "in"
    machine.fails(12, "exists", "download", str(tmp_path / "in.json"), "-o", str(tmp_path / "out"))
    machine.fails(12, "exists", "upload", str(tmp_path / "in"))


def test_what_is_uploaded_over_a_file_shows_in_the_mount(machine: Machine) -> None:
    machine.mount()
    machine.file("in").write_text("old")
    machine.succeeds("upload", str(REPOSITORY / "setup.cfg"), "--to", "/in", "--replace")
    assert machine.file("in").read_bytes() == (REPOSITORY / "setup.cfg").read_bytes()


def test_a_passphrase_reaches_the_drive_but_no_environment(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "home", {VARIABLE: "open sesame"})
    os.mkdir(machine.mountpoint)
    try:
        machine.succeeds("init", "--phrase-file", str(tmp_path / "phrase"))
        machine.mount()
        for process in processes_of(str(machine.home)):
            assert b"sesame" not in Path(f"/proc/{process}/environ").read_bytes()
            assert b"sesame" not in Path(f"/proc/{process}/cmdline").read_bytes()
        machine.succeeds("umount", machine.mountpoint)
        machine.variables[VARIABLE] = "wrong"
        machine.fails(7, "passphrase", machine.mountpoint, module="mount")
        assert not machine.is_mounted
        log = (machine.home / "volumes" / "default" / "mount.log").read_text()
        assert "sesame" not in log
        assert (tmp_path / "phrase").read_text().strip() not in log
    finally:
        machine.close()


def test_policies_are_set_and_shown(machine: Machine) -> None:
    machine.mount()
    os.mkdir(machine.file("d"))
    machine.succeeds("set", str(machine.file("d")), "redundancy=mirror:2", "sharding=count:8")
    assert json.loads(machine.succeeds("set", str(machine.file("d")), "--json")) == {
        "redundancy": "mirror:2",
        "sharding": "count:8",
    }
    machine.fails(12, "there is no", "set", str(machine.file("none")), "redundancy=mirror:2")


def test_a_port_in_use_and_a_damaged_key_are_said_in_the_foreground(machine: Machine) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        option = f"listen=127.0.0.1:{taken.getsockname()[1]}"
        machine.fails(9, "port", machine.mountpoint, "-o", option, module="mount")
    key = machine.home / "volumes" / "default" / "volume.key"
    key.write_bytes(key.read_bytes()[:-1])
    machine.fails(8, "damaged", machine.mountpoint, module="mount")
    assert not machine.is_mounted


def test_ctrl_c_while_starting_leaves_nothing(machine: Machine) -> None:
    command = [sys.executable, "-m", "layrfs.cli.mount", machine.mountpoint]
    with subprocess.Popen(command, env=machine.environment(), cwd="/", stderr=subprocess.PIPE) as process:
        wait_for(lambda: len(processes_of(str(machine.home))) > 1, "the drive's own process")
        process.send_signal(signal.SIGINT)
        _output, errors = process.communicate(timeout=240)
    assert b"Traceback" not in errors
    if process.returncode == 0:
        machine.succeeds("umount", machine.mountpoint)  # it was quicker than we
    else:
        assert (process.returncode, errors) == (130, b"mount.layrfs: interrupted\n")
    wait_for(lambda: not processes_of(str(machine.home)), "every process ended")
    assert not machine.is_mounted


def test_a_drive_whose_starter_has_gone_before_it_was_ready_ends(machine: Machine) -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "layrfs.cli.mount", "-f", f"--ready-fd={theirs.fileno()}", machine.mountpoint]
    with theirs:
        passed = [theirs.fileno()]
        process = subprocess.Popen(
            command, env=machine.environment(), cwd="/", pass_fds=passed, stderr=subprocess.PIPE, text=True
        )
    ours.close()
    _output, errors = process.communicate(timeout=240)
    assert (process.returncode, "has gone" in errors) == (1, True), errors
    assert not machine.is_mounted


def test_mount_py_once_its_environment_is_there(tmp_path: Path) -> None:
    python = REPOSITORY / ".venv" / "bin" / "python"
    if os.path.realpath(sys.prefix) != os.path.realpath(python.parent.parent):
        pytest.skip("these tests do not run in the environment that mount.py made")
    machine = Machine(tmp_path / "home")
    os.mkdir(machine.mountpoint)
    base = os.path.join(sys.base_prefix, "bin", os.path.basename(os.path.realpath(sys.executable)))
    command = [base, str(REPOSITORY / "mount.py"), machine.mountpoint]
    try:
        first = subprocess.run(command, env=machine.environment(), capture_output=True, text=True, check=True)
        words = machine.succeeds("phrase").split()
        assert all(f" {word}" in first.stdout for word in words)
        assert machine.is_mounted
        machine.succeeds("umount", machine.mountpoint)
        again = subprocess.run(command, env=machine.environment(), capture_output=True, text=True, check=True)
        assert "recovery phrase" not in again.stdout
        assert machine.mountpoint in again.stdout
    finally:
        machine.close()
