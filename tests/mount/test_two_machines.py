"""One writer at a time: a second machine is refused, goes on when the first has stopped, or takes over."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drive import Drive, HostNetwork, environment, is_mounted, layrfs, wait_for

HELD = 14


@pytest.fixture
def machines(hosts: HostNetwork, tmp_path: Path) -> tuple[Drive, Drive]:
    """Two state directories of one volume. The first has written `old` and is not mounted."""
    first, second = (Drive(str(tmp_path / name), seeds=hosts.seeds) for name in ("first", "second"))
    phrase = first.init()
    with first:
        Path(first.path, "old").write_text("old")
        first.umount()
    layrfs(second.home, "recover", "--phrase-file", phrase, *hosts.seeds)
    return first, second


def refused(drive: Drive, *options: str) -> str:
    """What the mount command says that does not mount."""
    done = layrfs(drive.home, "mount", *options, drive.path, check=False)
    assert done.returncode == HELD, done.stderr
    return done.stderr


def asides(drive: Drive) -> list[Path]:
    return sorted(Path(drive.home, "volumes", "default").glob("aside-*"))


def test_the_second_machine_is_refused_by_name_and_goes_on_when_the_first_has_stopped(
    machines: tuple[Drive, Drive],
) -> None:
    first, second = machines
    with first:
        Path(first.path, "new").write_text("new")
        first.sync()
        sentence = refused(second)
        assert socket.gethostname() in sentence
        assert "--take-over" in sentence
        assert "-o ro" in sentence
        assert sentence.count("\n") == 1, "one sentence"
        first.umount()
    with second:
        assert Path(second.path, "new").read_text() == "new"
        Path(second.path, "new").write_text("newer")
        os.mkdir(os.path.join(second.path, "directory"))
        second.umount()
    with first:
        assert Path(first.path, "new").read_text() == "newer", "not what its cache had"
        assert sorted(os.listdir(first.path)) == ["directory", "new", "old"]
        assert first.status()["problems"] == []
        assert first.state(os.path.join(first.path, "old")) == "safe"
    assert asides(first) == asides(second) == []


def test_who_is_taken_over_turns_read_only_and_finds_its_own_set_aside(machines: tuple[Drive, Drive]) -> None:
    first, second = machines
    first.options.append("upload_after=1000")
    with first:
        directory = os.path.join(first.path, "directory")
        os.mkdir(directory)
        Path(directory, "unsent").write_bytes(b"only here" * 1000)
        first.status()
        refused(second)
        second.options.append("take_over")
        with second:
            assert Path(second.path, "old").read_text() == "old"
            Path(second.path, "theirs").write_text("theirs")
            second.sync()
            wait_for(lambda: first.status()["read_only"], lambda: f"read-only: {first.status()}", 30)
            with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
                Path(first.path, "more").write_text("more")
            assert Path(directory, "unsent").read_bytes() == b"only here" * 1000
            assert any("has taken over" in problem for problem in first.status()["problems"])
            done = layrfs(first.home, "sync", first.path, check=False)
            assert (done.returncode, "has taken over" in done.stderr) == (HELD, True)
            first.umount()
            second.umount()
    first.options.clear()
    done = layrfs(first.home, "mount", first.path)
    try:
        (aside,) = asides(first)
        assert str(aside) in done.stderr
        assert any(str(aside) in problem for problem in first.status()["problems"])
        assert (aside / "files" / "directory" / "unsent").read_bytes() == b"only here" * 1000
        assert (aside / "files" / "directory" / "unsent").stat().st_mode & 0o777 == 0o600
        assert Path(first.path, "theirs").read_text() == "theirs"
        assert Path(first.path, "old").read_text() == "old"
        assert "more" not in os.listdir(first.path)
    finally:
        layrfs(first.home, "umount", first.path)


def test_of_two_that_begin_at_once_one_writes(machines: tuple[Drive, Drive]) -> None:
    commands = [[sys.executable, "-m", "layrfs.cli.main", "mount", drive.path] for drive in machines]
    started = [
        subprocess.Popen(command, env=environment(drive.home), cwd="/", stdin=subprocess.DEVNULL)
        for command, drive in zip(commands, machines, strict=True)
    ]
    try:
        codes = [process.wait(240) for process in started]
        assert sorted(codes) == [0, HELD], codes
        winner, loser = sorted(machines, key=lambda drive: not is_mounted(drive.path))
        assert not is_mounted(loser.path)
        Path(winner.path, "won").write_text("won")
        winner.sync()
        assert winner.status()["problems"] == []
    finally:
        for drive in machines:
            drive.close()
