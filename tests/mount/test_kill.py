"""`kill -9` at the worst moments: of the mount, its workers, the embedded network.

What was fsynced is there; what was synced is safe.
"""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drive import Drive, environment, kill, layrfs, run, wait_for
from tests.trees import MIB, write_stream

WRITER = """
import hashlib, os, random, sys
root, seed = sys.argv[1], int(sys.argv[2])
dice = random.Random(seed)
number = 0
while True:
    directory = os.path.join(root, f"d{number // 20}")
    if not os.path.isdir(directory):
        os.mkdir(directory)  # in one that is the drive's: a mountpoint whose mount is gone stays empty
    path = os.path.join(directory, f"f{number}")
    data = dice.randbytes(dice.choice([0, 17, 4096, 70_000, 1_500_000]))
    temporary = path + ".tmp" if dice.random() < 0.5 else path
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if temporary != path:
        os.rename(temporary, path)
        holder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(holder)
        os.close(holder)
    print(path, hashlib.sha256(data).hexdigest(), flush=True)
    number += 1
"""
OVERWRITER = """
import mmap, os, random, sys
path, blocks, turn = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dice = random.Random(turn)
file = os.open(path, os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 65536)
while True:
    turn += 1
    block = dice.randrange(blocks)
    page[:] = b"%016d" % turn * 4096
    os.pwrite(file, page, block * 65536)
    if turn % 15 == 0:
        os.fsync(file)
    print(block, turn, flush=True)
"""
BLOCK_BYTES = 65536
"""What the overwriter writes at once, past the kernel's cache: every write reaches the drive, fsynced or not."""


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    """A drive that uploads at once, so that a kill meets uploads."""
    with Drive(str(tmp_path / "drive"), options=["upload_after=0"]) as drive:
        yield drive


def lines_of(path: str) -> list[str]:
    """Complete lines a program has printed so far."""
    return Path(path).read_text().rpartition("\n")[0].splitlines()


def start(program: str, log: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Run a small program whose output goes to `log`."""
    with open(log, "wb") as output, open(f"{log}.errors", "wb") as errors:
        return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=output, stderr=errors)


def wrong(promises: dict[str, str]) -> list[str]:
    """The promised files that are missing or have other contents."""
    return [path for path, digest in promises.items() if not os.path.exists(path) or digest_of(path) != digest]


def digest_of(path: str) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_what_was_fsynced_survives_the_mount_being_killed(drive: Drive, tmp_path: Path) -> None:
    promises: dict[str, str] = {}
    for turn, wanted in enumerate((3, 40, 90)):
        log = str(tmp_path / f"log{turn}")
        roots = [os.path.join(drive.path, f"{name}{turn}") for name in ("turn", "other")]
        for root in roots:
            os.mkdir(root)
        writers = [start(WRITER, log, roots[0], str(turn)), start(WRITER, f"{log}.too", roots[1], str(100 + turn))]
        try:
            wait_for(lambda log=log, wanted=wanted: len(lines_of(log)) >= wanted, f"{wanted} files written")  # type: ignore[misc]
            drive.crash()
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()
        promises |= dict(line.split() for line in lines_of(log) + lines_of(f"{log}.too"))
        drive.mount()
        assert wrong(promises) == []
    drive.sync()
    drive.remount(emptied=True)
    assert wrong(promises) == []


@pytest.mark.parametrize("clock_was_set_back", [False, True])
def test_overwriting_what_is_safe_survives_a_kill(drive: Drive, tmp_path: Path, *, clock_was_set_back: bool) -> None:
    path, blocks, log = os.path.join(drive.path, "base"), 800, str(tmp_path / "log")
    write_stream(path, blocks * BLOCK_BYTES)
    drive.sync()
    before = Path(path).read_bytes()
    for first, wanted in ((1500, 7), (3000, 40)):
        writer = start(OVERWRITER, log, path, str(blocks), str(first))
        try:
            wait_for(lambda wanted=wanted: len(lines_of(log)) > wanted, "overwritten here and there")  # type: ignore[misc]
            drive.crash()
        finally:
            writer.kill()
            writer.wait()
        if clock_was_set_back:
            look_old(drive)
        drive.mount()
        found = Path(path).read_bytes()
        check_overwritten(found, before, [(int(block), int(turn)) for block, turn in map(str.split, lines_of(log))])
        drive.sync()
        drive.remount(emptied=True)
        before = Path(path).read_bytes()
        assert changed_blocks(before, found) == [], "what the cache held after the kill is what the hosts got"


def look_old(drive: Drive) -> None:
    """Cache files as if the clock had been an hour behind when they were written: no change shows by its time."""
    caches = [os.path.join(top, name) for top, _, names in os.walk(drive.home) for name in names]
    caches = [path for path in caches if f"{os.sep}cache{os.sep}" in path]
    assert caches
    for path in caches:
        long_ago = os.stat(path).st_mtime - 3600
        os.utime(path, (long_ago, long_ago))


def changed_blocks(one: bytes, other: bytes) -> list[int]:
    """Blocks in which two versions of a file differ."""
    assert len(one) == len(other)
    return [
        start // BLOCK_BYTES
        for start in range(0, len(one), BLOCK_BYTES)
        if block_at(one, start) != block_at(other, start)
    ]


def block_at(data: bytes, start: int) -> bytes:
    """One block."""
    return data[start : start + BLOCK_BYTES]


def check_overwritten(now: bytes, before: bytes, log: list[tuple[int, int]]) -> None:
    """Every changed block is what some write made of it, never older than the last fsync of that block."""
    synced = log[: len(log) // 15 * 15]
    promised, last = dict(synced), log[-1][1] + 1
    changed = changed_blocks(now, before)
    assert set(promised) <= set(changed)
    for block in changed:
        here = block_at(now, block * BLOCK_BYTES)
        turn = int(here[:16])
        assert here == b"%016d" % turn * 4096, f"block {block} is torn"
        assert promised.get(block, log[0][1]) <= turn <= last, f"block {block} is of another time"


def test_the_mount_killed_in_the_middle_of_an_upload(drive: Drive, tmp_path: Path) -> None:
    plain = str(tmp_path / "plain")
    write_stream(plain, 96 * MIB)
    run("cp", plain, os.path.join(drive.path, "stream"))
    run("sync", os.path.join(drive.path, "stream"))
    wait_for(lambda: len(drive.piece_files()) > 6, "some shards are on hosts")
    drive.crash()
    drive.mount()
    run("cmp", plain, os.path.join(drive.path, "stream"))
    drive.sync()
    drive.remount(emptied=True)
    run("cmp", plain, os.path.join(drive.path, "stream"))


@pytest.mark.parametrize("word", ["layrfs.worker", "layrfs.app.embedded"])
def test_a_killed_helper_process_comes_back_and_the_upload_ends(drive: Drive, tmp_path: Path, word: str) -> None:
    plain = str(tmp_path / "plain")
    write_stream(plain, 96 * MIB)
    first = drive.pids(word)
    assert first, f"no process has {word} in its command line"
    run("cp", plain, os.path.join(drive.path, "stream"))
    for pieces in (3, 18):
        wait_for(lambda wanted=pieces: len(drive.piece_files()) >= wanted, "the upload goes on")  # type: ignore[misc]
        for pid in drive.pids(word):
            kill(pid)
        wait_for(lambda: bool(drive.pids(word)), f"{word} is started again")
        assert os.listdir(drive.path) == ["stream"]
    drive.make_safe(os.path.join(drive.path, "stream"))
    assert not set(first) & set(drive.pids(word))
    drive.drop_cache()
    for pid in drive.pids(word):
        kill(pid)
    run("cmp", plain, os.path.join(drive.path, "stream"))


def test_a_killed_sync_command_harms_nothing(drive: Drive) -> None:
    write_stream(os.path.join(drive.path, "stream"), 48 * MIB)
    command = [sys.executable, "-m", "layrfs.cli.main", "sync", drive.path]
    with open(os.devnull, "wb") as nowhere:
        syncing = subprocess.Popen(command, env=environment(drive.home), stdout=nowhere, stderr=nowhere)
    wait_for(lambda: len(drive.piece_files()) > 3, "it has begun")
    syncing.send_signal(signal.SIGKILL)
    syncing.wait()
    drive.make_safe(os.path.join(drive.path, "stream"))


def test_a_stale_mountpoint_is_named_and_can_be_cleaned(drive: Drive) -> None:
    assert drive.process is not None
    Path(drive.path, "file").write_text("here")
    run("sync", os.path.join(drive.path, "file"))
    drive.process.kill()
    drive.process.wait()
    with pytest.raises(OSError, match="Transport endpoint is not connected"):
        os.listdir(drive.path)
    wait_for(lambda: not drive.pids(), "its children have ended")
    layrfs(drive.home, "umount", drive.path, check=False)
    run("fusermount3", "-uz", drive.path, check=False)
    drive.mount()
    assert Path(drive.path, "file").read_text() == "here"
