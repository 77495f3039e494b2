"""`-o ro` on another machine goes where the writer goes: within seconds, and without hosts being told anything."""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

import pytest

from tests.drive import Drive, HostNetwork, layrfs, run, tail, wait_for
from tests.mount.test_recover import is_published
from tests.trees import MIB

SECONDS = 90.0
"""A few would do, but the machine may be busy."""


@contextmanager
def following(hosts: HostNetwork, directory: Path, *options: str) -> Iterator[tuple[Drive, Drive]]:
    """A mounted writer with a few files, and a mount that follows it."""
    first, second = Drive(str(directory / "first"), seeds=hosts.seeds, options=options), ro_drive(directory, hosts)
    phrase = first.init()
    with first:
        for name in ("changed", "renamed", "deleted"):
            Path(first.path, name).write_bytes(b"old " * 1000)
        os.mkdir(os.path.join(first.path, "directory"))
        first.sync()
        layrfs(second.home, "recover", "--phrase-file", phrase, *hosts.seeds)
        with second:
            yield first, second


def ro_drive(directory: Path, hosts: HostNetwork) -> Drive:
    return Drive(str(directory / "second"), seeds=hosts.seeds, options=["ro"])


def seen(drive: Drive, condition: Callable[[], bool], what: str) -> None:
    """A condition over the follower's files, which may not be there yet or be unsent."""

    def holds() -> bool:
        with suppress(OSError):
            return condition()
        return False

    wait_for(holds, lambda: f"{what}\n{tail(drive.output)}", SECONDS)


def text(drive: Drive, name: str) -> bytes:
    return Path(drive.path, name).read_bytes()


def opened(drive: Drive, name: str) -> FileIO:
    return FileIO(os.path.join(drive.path, name))


def version(drive: Drive) -> int:
    number: int = drive.status()["published_version"]
    return number


def test_names_and_bytes_follow_the_writer(hosts: HostNetwork, tmp_path: Path) -> None:
    with following(hosts, tmp_path) as (first, second):
        for name in ("changed", "renamed", "deleted"):
            assert text(second, name) == b"old " * 1000
        assert not os.path.exists(os.path.join(second.path, "new"))
        with opened(second, "changed") as changed, opened(second, "deleted") as deleted:
            assert os.pread(changed.fileno(), 4, 0) == os.pread(deleted.fileno(), 4, 0) == b"old "
            times = os.stat(os.path.join(first.path, "changed"))
            Path(first.path, "new").write_text("new")
            Path(first.path, "changed").write_bytes(b"new " * 1000)
            os.utime(os.path.join(first.path, "changed"), ns=(times.st_atime_ns, times.st_mtime_ns))
            os.rename(os.path.join(first.path, "renamed"), os.path.join(first.path, "directory", "moved"))
            os.unlink(os.path.join(first.path, "deleted"))
            os.setxattr(os.path.join(first.path, "new"), "user.colour", b"blue")
            first.sync()
            seen(second, lambda: os.pread(changed.fileno(), 4000, 0) == b"new " * 1000, "a file that is open")
            seen(second, lambda: text(second, "changed") == b"new " * 1000, "a changed file")
            seen(second, lambda: sorted(os.listdir(second.path)) == ["changed", "directory", "new"], "names")
            assert text(second, "new") == b"new"
            assert text(second, "directory/moved") == b"old " * 1000
            assert os.getxattr(os.path.join(second.path, "new"), "user.colour") == b"blue"
            assert os.pread(deleted.fileno(), 4000, 0) == b"old " * 1000, "as far as it was here"
            assert os.fstat(deleted.fileno()).st_nlink in {0, 1}
        seen(second, lambda: not os.path.exists(os.path.join(second.path, "deleted")), "a name that is gone")
        layrfs(second.home, "pin", os.path.join(second.path, "new"))
        os.truncate(os.path.join(first.path, "changed"), 10)
        Path(first.path, "new").write_bytes(b"pinned" * 1000)
        first.sync()
        seen(second, lambda: second.status(os.path.join(second.path, "new"))["cached_bytes"] > 4096, "a pinned file")
        seen(second, lambda: text(second, "changed") == b"new new ne", "a file that was cut")
        status = second.status()
        assert status["read_only"]
        assert status["follows"]["writer"] == os.uname().nodename
        assert status["follows"]["seen_seconds"] <= SECONDS
        assert status["problems"] == []
        assert "version" in layrfs(second.home, "status").stdout


def test_nothing_can_be_written_and_nothing_is_sent(tmp_path: Path) -> None:
    with (
        HostNetwork(str(tmp_path / "hosts"), program=("-m", "tests.recording_host")) as hosts,
        following(hosts, tmp_path) as (first, second),
    ):
        Path(first.path, "changed").write_bytes(b"new " * 1000)
        first.sync()
        seen(second, lambda: text(second, "changed") == b"new " * 1000, "a changed file")
        for attempt in (
            lambda: Path(second.path, "mine").write_text("x"),
            lambda: os.mkdir(os.path.join(second.path, "mine")),
            lambda: os.unlink(os.path.join(second.path, "changed")),
            lambda: os.setxattr(os.path.join(second.path, "changed"), "user.x", b"y"),
            lambda: os.utime(os.path.join(second.path, "changed")),
        ):
            with pytest.raises(OSError, match="Read-only") as raised:
                attempt()
            assert raised.value.errno == errno.EROFS
        source = tmp_path / "source"
        source.write_text("x")
        assert layrfs(second.home, "upload", str(source), check=False).returncode
        first.umount()
        second.drop_cache()
        second.umount()
        records = [Path(home, "received") for home in hosts.homes]
        sizes = [record.stat().st_size for record in records]
        second.mount()
        assert text(second, "changed") == b"new " * 1000
        run("find", second.path)
        wait_for(lambda: second.status()["follows"]["seen_seconds"] is not None, "hosts were asked", SECONDS)
        second.sync()
        second.umount()
        received = b"".join(record.read_bytes()[size:] for record, size in zip(records, sizes, strict=True))
        assert b"get root" in received
        assert b"retrieve" in received
        for request in (b"store", b"delete", b"put root", b"renew"):
            assert request not in received


def test_a_block_that_no_host_has_is_an_error_until_one_has_it(hosts: HostNetwork, tmp_path: Path) -> None:
    with following(hosts, tmp_path, "upload_after=1000") as (first, second):
        assert text(second, "changed") == b"old " * 1000
        before = version(first)
        Path(first.path, "changed").write_bytes(b"new " * 2000)
        run("sync", os.path.join(first.path, "changed"))
        wait_for(lambda: is_published(first, before), "the name is on the network, not its bytes")
        seen(second, lambda: os.path.getsize(os.path.join(second.path, "changed")) == 8000, "its size")
        with pytest.raises(OSError, match="Input/output error"):
            text(second, "changed")
        assert second.state(os.path.join(second.path, "changed")) == "uploading"
        assert text(second, "renamed") == b"old " * 1000
        first.sync()
        seen(second, lambda: text(second, "changed") == b"new " * 2000, "its bytes")


def test_a_reader_never_sees_a_mix(hosts: HostNetwork, tmp_path: Path) -> None:
    with following(hosts, tmp_path) as (first, second):
        Path(first.path, "large").write_bytes(b"a" * 9 * MIB)
        first.sync()
        seen(second, lambda: text(second, "large") == b"a" * 9 * MIB, "a large file")
        letters = set()
        with opened(second, "large") as large:
            for letter in (b"b", b"c"):
                Path(first.path, "large").write_bytes(letter * 9 * MIB)
                first.sync()
                deadline = time.monotonic() + SECONDS
                while letter not in letters and time.monotonic() < deadline:
                    with suppress(OSError):
                        found = os.pread(large.fileno(), 65536, 5 * MIB)
                        assert found in (one * 65536 for one in (b"a", b"b", b"c"))
                        letters.add(found[:1])
        assert letters >= {b"b", b"c"}


def test_it_goes_on_through_merges_checkpoints_and_the_end_of_the_writer(hosts: HostNetwork, tmp_path: Path) -> None:
    with following(hosts, tmp_path) as (first, second):
        for step in range(6):
            Path(first.path, "changed").write_text(f"step {step}")
            os.rename(os.path.join(first.path, "renamed"), os.path.join(first.path, "third"))
            os.rename(os.path.join(first.path, "deleted"), os.path.join(first.path, "renamed"))
            os.rename(os.path.join(first.path, "third"), os.path.join(first.path, "deleted"))
            first.sync()
        seen(second, lambda: text(second, "changed") == b"step 5", "merged segments")
        for number in range(2):  # more than a checkpoint is due after
            for name in ("changed", "renamed"):
                for part in range(20):
                    os.setxattr(os.path.join(first.path, name), f"user.{part}", os.urandom(60_000))
            Path(first.path, "new").write_text(f"checkpoint {number}")
            first.sync()
        seen(second, lambda: text(second, "new") == b"checkpoint 1", "a checkpoint")
        assert second.status()["problems"] == []
        first.crash()
        assert text(second, "changed") == b"step 5"
        first.mount()
        Path(first.path, "new").write_text("after a crash")
        first.sync()
        seen(second, lambda: text(second, "new") == b"after a crash", "what is written after a crash")
        second.crash()
        Path(first.path, "new").write_text("while it was away")
        first.sync()
        second.mount()
        seen(second, lambda: text(second, "new") == b"while it was away", "what it missed")
        first.umount()
        second.umount()
        second.options = []
        second.mount()
        Path(second.path, "mine").write_text("now it writes")
        second.sync()
        assert second.status()["problems"] == []


def test_unreachable_hosts_are_a_problem_and_not_the_end(hosts: HostNetwork, tmp_path: Path) -> None:
    with following(hosts, tmp_path) as (_first, second):
        assert text(second, "changed") == b"old " * 1000
        for number in range(5):
            hosts.kill(number)
        wait_for(lambda: bool(second.status()["problems"]), "a problem is told", 60)
        assert text(second, "changed") == b"old " * 1000
        for number in range(5):
            hosts.start(number)
        wait_for(lambda: not second.status()["problems"], lambda: f"it is over: {second.status()['problems']}", 90)


def test_what_has_changes_of_its_own_does_not_follow(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds, options=["upload_after=1000"]) as first:
        Path(first.path, "sent").write_text("sent")
        first.sync()
        Path(first.path, "unsent").write_text("only here")
        first.umount(wait=False)
        first.options = ["ro", "upload_after=1000"]
        first.mount()
        assert text(first, "unsent") == b"only here"
        assert first.status()["follows"] is None
        assert "on no host yet" in tail(first.output) + tail(os.path.join(first.home, "volumes/default/mount.log"))


def test_a_volume_that_is_new_is_empty_and_then_followed(hosts: HostNetwork, tmp_path: Path) -> None:
    first, second = Drive(str(tmp_path / "first"), seeds=hosts.seeds), ro_drive(tmp_path, hosts)
    first.init()
    shutil.copytree(first.home, second.home, dirs_exist_ok=True)
    with second:
        assert os.listdir(second.path) == []
        with first:
            Path(first.path, "file").write_text("first")
            first.sync()
            seen(second, lambda: text(second, "file") == b"first", "the first version")
        second.remount()
        assert text(second, "file") == b"first"
