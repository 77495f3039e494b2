"""Programs people use, on the drive, unchanged: none may notice that the disk is a network.

All tests share one drive, each in its own directory. The last one empties the cache and compares what they left behind.
"""

import hashlib
import mmap
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drive import Drive, differences, run
from tests.trees import MIB, decorate_tree, make_tar, source_tree, write_stream

GIB = 1024 * MIB
SQLITE_WRITERS, ROWS_PER_WRITER = 4, 100
SQLITE_WRITER = """
import sqlite3, sys
path, writer, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
base = sqlite3.connect(path, timeout=60, isolation_level=None)
for row in range(rows):
    base.execute("BEGIN IMMEDIATE")
    base.execute("INSERT INTO entry(writer, row, text) VALUES (?, ?, ?)", (writer, row, "x" * (row * 37 % 3000)))
    base.execute("UPDATE total SET rows = rows + 1")
    base.execute("COMMIT")
base.close()
"""


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    """The drive all programs share."""
    with Drive(str(tmp_path_factory.mktemp("programs"))) as drive:
        yield drive


@pytest.fixture
def place(drive: Drive, request: pytest.FixtureRequest) -> str:
    """A test's own empty directory on the drive."""
    path = os.path.join(drive.path, request.node.name)
    os.mkdir(path)
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, big: bool) -> str:
    """A source tree in a plain directory."""
    root = str(tmp_path_factory.mktemp("plain") / "tree")
    source_tree(root, 5_000 if big else 400)
    decorate_tree(root)
    return root


@pytest.fixture(scope="module")
def repository(tree: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A git repository with two commits, in a plain directory."""
    path = str(tmp_path_factory.mktemp("git") / "origin")
    run("cp", "-a", tree, path)
    os.unlink(os.path.join(path, "pipe"))
    git(path, "init", "-q", "-b", "main")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "first")
    Path(path, "one").write_text("changed")
    git(path, "commit", "-q", "-a", "-m", "second")
    return path


def git(directory: str, *arguments: str) -> str:
    """git as a known person with no configuration of this machine."""
    variables = {
        f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    variables |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    return run("git", *arguments, cwd=directory, variables=variables)


def test_rsync_twice_and_the_second_time_there_is_nothing_to_do(place: str, tree: str) -> None:
    run("rsync", "-aHAX", f"{tree}/", f"{place}/tree/")
    assert run("rsync", "-aHAX", "--itemize-changes", f"{tree}/", f"{place}/tree/") == ""
    assert differences(tree, f"{place}/tree") == ""
    Path(place, "tree", "one").write_bytes(b"y")
    assert "one" in differences(tree, f"{place}/tree"), "the comparison itself must be able to fail"


def test_rsync_inplace_and_delete(place: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", f"{place}/target/"
    source.mkdir()
    write_stream(str(source / "disk.img"), 10 * MIB)
    run("rsync", "-a", f"{source}/", target)
    with open(source / "disk.img", "r+b") as image:
        image.seek(5 * MIB)
        image.write(b"a changed sector")
    (source / "new").write_text("new")
    Path(target, "stray").write_text("stray")
    run("rsync", "-a", "--ignore-times", "--inplace", "--no-whole-file", "--delete", f"{source}/", target)
    assert differences(str(source), target) == ""


def test_git_clone_edit_commit_fsck(place: str, repository: str) -> None:
    git(place, "clone", "-q", "--no-hardlinks", repository, "copy")
    copy = f"{place}/copy"
    assert git(copy, "status", "--porcelain") == ""
    Path(copy, "one").write_text("edited on the drive")
    Path(copy, "new file").write_text("new")
    assert sorted(git(copy, "status", "--porcelain").splitlines()) == [" M one", '?? "new file"']
    git(copy, "add", "-A")
    git(copy, "commit", "-q", "-m", "third")
    git(copy, "checkout", "-q", "-b", "side", "HEAD~1")
    git(copy, "checkout", "-q", "main")
    git(copy, "gc", "-q")
    assert git(copy, "status", "--porcelain") == ""
    git(copy, "fsck", "--full", "--strict")
    assert git(copy, "log", "--oneline").count("\n") == 3
    git(copy, "push", "-q", "origin", "HEAD:refs/heads/from-the-drive")


def test_sqlite_in_wal_mode_under_concurrent_writers(place: str) -> None:
    path = f"{place}/base.db"
    base = sqlite3.connect(path, isolation_level=None)
    assert base.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    base.execute("CREATE TABLE entry(writer, row, text, PRIMARY KEY(writer, row))")
    base.execute("CREATE TABLE total(rows)")
    base.execute("INSERT INTO total VALUES (0)")
    writers = [
        subprocess.Popen([sys.executable, "-c", SQLITE_WRITER, path, str(number), str(ROWS_PER_WRITER)])
        for number in range(SQLITE_WRITERS)
    ]
    readings = []
    while any(writer.poll() is None for writer in writers):
        readings.append(base.execute("SELECT (SELECT count(*) FROM entry), rows FROM total").fetchone())
    assert [writer.wait() for writer in writers] == [0] * SQLITE_WRITERS
    assert all(counted == total for counted, total in readings), "a reader saw half a transaction"
    assert base.execute("SELECT rows FROM total").fetchone() == (SQLITE_WRITERS * ROWS_PER_WRITER,)
    assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    base.execute("VACUUM")
    base.close()
    assert run("sqlite3", path, "PRAGMA integrity_check") == "ok\n"


@pytest.mark.parametrize("how", ["no", "yes", "auto"])
def test_vim(place: str, how: str) -> None:
    path = f"{place}/poem.txt"
    Path(path).write_text("old words\n" * 500)
    os.chmod(path, 0o640)
    commands = [f"+set backup backupskip= backupcopy={how} fsync", "+%s/old/new/", "+wq"]
    run("vim", "-es", "-u", "NONE", "-N", *commands, path)
    assert Path(path).read_text() == "new words\n" * 500
    assert Path(f"{path}~").read_text() == "old words\n" * 500
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert sorted(os.listdir(place)) == ["poem.txt", "poem.txt~"], "no swap file is left"


def test_an_editor_that_saves_by_rename(place: str) -> None:
    path = f"{place}/report.odt"
    Path(path).write_bytes(b"version 0")
    with open(path, "rb") as reader:
        for number in range(1, 30):
            with open(f"{place}/.~tmp", "wb") as file:
                file.write(b"version %d" % number * 1000)
                file.flush()
                os.fsync(file.fileno())
            os.replace(f"{place}/.~tmp", path)
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(directory)
            os.close(directory)
            assert Path(path).read_bytes() == b"version %d" % number * 1000
        assert reader.read() == b"version 0", "who had the old version open keeps it"
    assert os.listdir(place) == ["report.odt"]


def test_tar_there_and_back(place: str, tree: str, tmp_path: Path) -> None:
    archive = str(tmp_path / "tree.tar")
    make_tar(tree, archive)
    run("tar", "xpf", archive, "-C", place)
    run("tar", "--compare", "-f", archive, "-C", place)
    run("tar", "czf", f"{place}/back.tgz", "-C", place, "tree")
    (tmp_path / "back").mkdir()
    run("tar", "xpzf", f"{place}/back.tgz", "-C", str(tmp_path / "back"))
    assert differences(tree, f"{tmp_path}/back/tree", "-aH") == ""


def test_cp_reflink_auto(place: str, tree: str) -> None:
    run("cp", "--reflink=auto", "-a", tree, f"{place}/first")
    run("cp", "--reflink=auto", "-a", f"{place}/first", f"{place}/second")
    assert differences(tree, f"{place}/second") == ""


def test_mv_rm_and_find(place: str, tree: str) -> None:
    run("cp", "-a", tree, f"{place}/tree")
    chosen = ["-not", "-type", "d", "(", "-name", "*7.py", "-o", "-size", "+8k", "-o", "-type", "l", ")", "-printf"]
    here, there = (run("find", where, *chosen, "%P %y %m %s %n %l %T@\\n") for where in (f"{place}/tree", tree))
    assert sorted(here.splitlines()) == sorted(there.splitlines())
    assert here.count("\n") > 10
    run("mv", f"{place}/tree", f"{place}/moved")
    assert differences(tree, f"{place}/moved") == ""
    run("rm", "-r", f"{place}/moved")
    assert os.listdir(place) == []


def test_du_and_df(drive: Drive, place: str, tree: str) -> None:
    run("rsync", "-aHS", f"{tree}/", f"{place}/tree/")
    files = "du --apparent-size -b -c $(find . -type f) | tail -1"
    assert run("sh", "-c", files, cwd=f"{place}/tree") == run("sh", "-c", files, cwd=tree)
    used = [int(run("du", "-s", "-k", "--exclude=sparse", where).split()[0]) for where in (f"{place}/tree", tree)]
    assert 0.3 < used[0] / used[1] < 2, "what du counts is what is stored, about as on a disk"
    size, taken, free = map(int, run("df", "-k", "--output=size,used,avail", drive.path).splitlines()[1].split())
    assert size > 0
    assert 0 <= taken <= size
    assert 0 < free <= size
    inodes, inodes_free = map(int, run("df", "--output=itotal,iavail", drive.path).splitlines()[1].split())
    assert 0 < inodes_free < inodes


def test_mmap_shared_and_private(place: str) -> None:
    path = f"{place}/mapped"
    write_stream(path, 9 * MIB)
    expected = bytearray(Path(path).read_bytes())
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        assert shared[:] == expected
        for offset in (0, 4 * MIB - 2, 9 * MIB - 5):
            shared[offset : offset + 5] = b"mmap!"
            expected[offset : offset + 5] = b"mmap!"
        shared.flush()
        assert os.pread(file.fileno(), 5, 4 * MIB - 2) == b"mmap!"
        os.pwrite(file.fileno(), b"write", 100)
        expected[100:105] = b"write"
        assert shared[100:105] == b"write"
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as private:
            private[0:5] = b"mine!"
    assert Path(path).read_bytes() == expected


def test_an_executable_runs_from_the_drive(place: str) -> None:
    run("cp", "/bin/true", f"{place}/true")
    run(f"{place}/true")
    Path(place, "script").write_text("#!/bin/sh\necho runs\n")
    os.chmod(f"{place}/script", 0o700)
    assert run(f"{place}/script") == "runs\n"


def test_files_past_four_gibibytes(place: str) -> None:
    path = f"{place}/sparse"
    marks = {0: b"start", 4 * GIB - 2: b"across", 5 * GIB: b"five", 6 * GIB - 3: b"end"}
    with open(path, "w+b") as file:
        for offset, mark in marks.items():
            os.pwrite(file.fileno(), mark, offset)
        os.fsync(file.fileno())
    assert os.stat(path).st_size == 6 * GIB
    assert os.stat(path).st_blocks * 512 < GIB
    with open(path, "rb") as file:
        for offset, mark in marks.items():
            assert os.pread(file.fileno(), len(mark), offset) == mark
        assert os.pread(file.fileno(), MIB, 2 * GIB) == bytes(MIB)
    os.truncate(path, 4 * GIB)
    assert os.stat(path).st_size == 4 * GIB
    os.truncate(path, 6 * GIB)
    with open(path, "rb") as file:
        assert os.pread(file.fileno(), 8, 4 * GIB - 2) == b"ac" + bytes(6), "what was cut off comes back as zeros"
    os.unlink(path)


def test_files_past_two_tebibytes(drive: Drive, place: str) -> None:
    path, far = f"{place}/huge", 2 * 1024 * GIB + 12_345
    with open(path, "w+b") as file:
        file.truncate(3 * 1024 * GIB)
        os.pwrite(file.fileno(), b"far away", far)
    drive.sync()
    drive.drop_cache()
    with open(path, "rb") as file:
        assert os.pread(file.fileno(), 10, far - 1) == b"\0far away\0"
    assert os.stat(path).st_size == 3 * 1024 * GIB
    os.unlink(path)


def awkward_names() -> list[bytes]:
    """Every byte a name can have, alone and together, and the longest names there are."""
    allowed = bytes(byte for byte in range(1, 256) if byte != ord("/"))
    alone = [bytes([byte]) for byte in allowed if byte != ord(".")]
    long = [b"n" * 255, "ü".encode() * 127, b"\xff" * 255, allowed, b"...", b"-rf", b"a\nb", b"con.txt", "💾".encode()]
    return alone + [name for name in long if len(name) <= 255 and name not in alone]


def test_names_of_any_byte(place: str) -> None:
    where = os.fsencode(place)
    names = awkward_names()
    for name in names:
        with open(os.path.join(where, name), "wb") as file:
            file.write(b"content of " + name)
    assert sorted(os.listdir(where)) == sorted(names)
    for name in names:
        with open(os.path.join(where, name), "rb") as file:
            assert file.read() == b"content of " + name
    with pytest.raises(OSError, match="File name too long"):
        open(os.path.join(where, b"n" * 256), "wb").close()
    for number, name in enumerate(names[::7]):
        os.rename(os.path.join(where, name), os.path.join(where, b"renamed%d" % number))
        os.rename(os.path.join(where, b"renamed%d" % number), os.path.join(where, name))
    assert sorted(os.listdir(where)) == sorted(names)


def tree_digest(root: str) -> dict[bytes, str]:
    """Every path below `root` with a digest of what is there: attributes a program sees and, for files, all bytes."""
    found = {}
    for top, directories, files in os.walk(os.fsencode(root)):
        for name in directories + files:
            path = os.path.join(top, name)
            about = os.lstat(path)
            facts = [about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns, about.st_nlink]
            digest = hashlib.sha256(repr(facts).encode())
            if stat.S_ISREG(about.st_mode):
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            elif stat.S_ISLNK(about.st_mode):
                digest.update(os.readlink(path))
            found[os.path.relpath(path, os.fsencode(root))] = digest.hexdigest()
    return found


def test_all_they_left_behind_reads_back_from_the_hosts(drive: Drive, place: str) -> None:
    Path(place, "something").write_bytes(b"in case this test runs alone")
    before = tree_digest(drive.path)
    drive.sync()
    drive.remount(emptied=True)
    after = tree_digest(drive.path)
    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} == set()
    for base in Path(drive.path).glob("*/base.db"):
        assert run("sqlite3", str(base), "PRAGMA integrity_check") == "ok\n"
    for copy in Path(drive.path).glob("*/copy/.git"):
        git(str(copy.parent), "fsck", "--full", "--strict")
