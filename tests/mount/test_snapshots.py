"""What was deleted or overwritten can be read again, as it was, from this machine and from any other."""

import errno
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.drive import Drive, HostNetwork, differences, layrfs, run, wait_for
from tests.trees import MIB, decorate_tree, source_tree, write_stream


def snapshot(drive: Drive, *arguments: str) -> str:
    """What ``layrfs snapshot`` prints."""
    return layrfs(drive.home, "snapshot", *arguments).stdout


def listed(drive: Drive) -> list[dict[str, object]]:
    """All snapshots, newest first."""
    found: list[dict[str, object]] = json.loads(snapshot(drive, "list", "--json"))
    return found


def filled(tree: str) -> None:
    """Files of all kinds, with attributes, links and holes, small and of several blocks."""
    source_tree(tree, 60)
    decorate_tree(tree)
    write_stream(os.path.join(tree, "large"), 9 * MIB + 99)


def test_an_overwritten_and_deleted_tree_is_still_in_the_snapshot(hosts: HostNetwork, tmp_path: Path) -> None:
    tree = str(tmp_path / "tree")
    filled(tree)
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds) as drive:
        live = os.path.join(drive.path, "tree")
        run("rsync", "-aHAX", f"{tree}/", f"{live}/")
        place = snapshot(drive, "create", "before").strip()
        assert place == os.path.join(drive.path, ".snapshots", "before")
        Path(live, "large").write_bytes(b"overwritten")
        os.truncate(os.path.join(live, "large"), 5)
        for name in os.listdir(live):
            if name != "large":
                run("rm", "-rf", os.path.join(live, name))
        old = os.path.join(place, "tree")
        assert differences(tree, old) == ""
        assert os.stat(os.path.join(old, "large")).st_ino != os.stat(os.path.join(live, "large")).st_ino
        run("cp", "-a", f"{old}/.", f"{live}/")
        assert differences(tree, live) == "", "copied back it is the same tree"
        run("rm", "-rf", live)
        drive.sync()
        drive.umount()
        shutil.rmtree(os.path.join(drive.home, "volumes", "default", "cache"))
        drive.mount()
        assert os.listdir(drive.path) == []
        assert differences(tree, old) == "", "after a remount, from hosts"
        drive.sync()
        drive.crash()
    second = Drive(str(tmp_path / "second"), seeds=hosts.seeds, options=["take_over"])
    layrfs(second.home, "recover", "--phrase-file", str(tmp_path / "first" / "phrase"), *hosts.seeds)
    with second:
        assert os.listdir(second.path) == []
        assert differences(tree, os.path.join(second.path, ".snapshots", "before", "tree")) == "", "after recover"
        assert "before" in [one["name"] for one in listed(second)]


def refused(code: int, action: Callable[[], object]) -> None:
    """An action fails with this errno."""
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is looked at below
        action()
    assert raised.value.errno == code, raised.value


def test_the_past_cannot_be_changed_and_is_not_in_the_way(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds) as drive:
        root = Path(drive.path)
        (root / "directory").mkdir()
        (root / "directory" / "file").write_text("as it was")
        (root / "link").symlink_to("directory/file")
        past = Path(snapshot(drive, "create").strip())
        directory = root / ".snapshots"
        old = past / "directory" / "file"
        assert past.parent == directory
        assert past.name in os.listdir(directory)
        assert sorted(os.listdir(root)) == ["directory", "link"], "who copies the mount does not copy its past"
        assert ".snapshots" not in run("find", drive.path)
        assert (past / "link").read_text() == "as it was"
        assert os.path.samefile(past / "directory" / "..", past)
        assert os.path.samefile(past / ".." / "..", root)
        Path(root, "directory", "file").write_text("as it is")
        assert old.read_text() == "as it was"

        for place in (past / "new", past / "directory" / "new", directory / "new"):
            refused(errno.EROFS, lambda place=place: place.write_text("x"))
            refused(errno.EROFS, lambda place=place: place.mkdir())
            refused(errno.EROFS, lambda place=place: place.symlink_to("x"))
            refused(errno.EROFS, lambda place=place: os.rename(root / "link", place))
            refused(errno.EROFS, lambda place=place: os.link(root / "directory" / "file", place))
        refused(errno.EROFS, lambda: old.write_text("x"))
        refused(errno.EROFS, lambda: os.open(old, os.O_RDWR))
        refused(errno.EROFS, lambda: os.truncate(old, 1))
        refused(errno.EROFS, old.unlink)
        refused(errno.EROFS, lambda: os.chmod(old, 0o600))
        refused(errno.EROFS, lambda: os.utime(old))
        refused(errno.EROFS, lambda: os.setxattr(old, "user.a", b"x"))
        refused(errno.EROFS, lambda: os.rename(old, root / "file"))
        refused(errno.EROFS, lambda: os.link(old, root / "file"))
        refused(errno.EROFS, past.rmdir)
        refused(errno.EROFS, directory.rmdir)
        refused(errno.EROFS, lambda: os.rename(directory, root / "mine"))
        refused(errno.EEXIST, directory.mkdir)
        for missing in (directory / "1999-01-01T00-00-00Z" / "file", directory / "never", past / "never"):
            refused(errno.ENOENT, missing.read_bytes)
        refused(errno.EISDIR, directory.read_bytes)
        assert old.read_text() == "as it was"
        assert os.stat(directory).st_mode & 0o777 == 0o700
        assert sorted(os.listdir(root)) == ["directory", "link"]


def test_a_log_that_is_written_all_the_time_ends_with_what_was_written(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds) as drive:
        path, done = Path(drive.path) / "log", threading.Event()

        def append() -> None:
            with path.open("ab") as log:
                for number in itertools.takewhile(lambda _number: not done.is_set(), itertools.count()):
                    log.write(b"line %d\n" % number)
                    log.flush()
                    os.fsync(log.fileno())

        with ThreadPoolExecutor() as threads:
            appending = threads.submit(append)
            try:
                wait_for(lambda: path.exists() and path.stat().st_size > 100, "the log grows")
                past = Path(snapshot(drive, "create").strip())
            finally:
                done.set()
            appending.result()
        old = (past / "log").read_bytes()
        assert old
        assert path.read_bytes().startswith(old)


def test_commands_say_what_is_wrong(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds) as drive:
        Path(drive.path, "file").write_text("1")
        snapshot(drive, "create", "one")
        for words, arguments in (
            ("is a snapshot one already", ["create", "one"]),
            ("no slash", ["create", "a/b"]),
            ("look like a time", ["create", "2026-01-01T00-00-00Z"]),
            ("There is no snapshot two", ["delete", "two"]),
            ("needs the name", ["delete"]),
        ):
            said = layrfs(drive.home, "snapshot", *arguments, check=False)
            assert said.returncode != 0
            assert words in said.stderr
            assert len(said.stderr.splitlines()) == 1
        (one,) = [entry for entry in listed(drive) if entry["name"] == "one"]
        assert (one["unsent_blocks"], one["kept"]) == (0, True)
        assert "whole" in snapshot(drive, "list")
        kept = Path(drive.path, ".snapshots", "one", "file")
        assert kept.read_text() == "1"
        snapshot(drive, "delete", "one")
        assert "one" not in [entry["name"] for entry in listed(drive)]
        wait_for(lambda: not kept.exists(), "a deleted snapshot is gone from .snapshots")
        drive.sync()
        assert drive.status()["problems"] == []


def test_what_was_on_no_host_then_is_an_error_and_not_older_bytes(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds, options=["upload_after=1000"]) as drive:
        file = Path(drive.path, "file")
        file.write_text("older")
        drive.sync()
        before = drive.status()["published_version"]
        file.write_text("newer")
        run("sync", str(file))
        wait_for(lambda: not drive.status()["unpublished"], "the change is published, not its bytes", 60)
        published = time.time()
        wait_for(lambda: time.time() >= published + 1, "of versions of one second only one stays")
        drive.sync()
        Path(drive.path, "other").write_text("one more version")
        drive.sync()
        versions = {entry["version"]: entry for entry in listed(drive)}
        partly = [entry for entry in versions.values() if entry["unsent_blocks"]]
        assert partly
        for entry in partly:
            place = Path(drive.path, ".snapshots", str(entry["name"]), "file")
            assert place.stat().st_size == 5
            refused(errno.EIO, place.read_bytes)
        whole = [entry for entry in versions.values() if entry["version"] == before]
        assert [Path(drive.path, ".snapshots", str(one["name"]), "file").read_text() for one in whole] == ["older"]


def test_many_snapshots_are_looked_at_by_turns(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds) as drive:
        for number in range(6):
            Path(drive.path, "file").write_text(str(number))
            snapshot(drive, "create", f"snapshot {number}")
        places = [Path(drive.path, ".snapshots", f"snapshot {number}", "file") for number in range(6)]
        numbers = [place.stat().st_ino for place in places]
        with places[0].open() as first:
            for _ in range(2):
                assert [place.read_text() for place in places] == [str(number) for number in range(6)]
                assert [place.stat().st_ino for place in places] == numbers
            assert first.read() == "0"
        opened = os.listdir(os.path.join(drive.home, "volumes", "default", "snapshots"))
        assert len(opened) <= 5
        drive.umount()
        drive.mount()
        assert os.listdir(os.path.join(drive.home, "volumes", "default", "snapshots")) == []
