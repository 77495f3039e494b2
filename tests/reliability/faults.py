"""The disk says no: calls of a running drive fail, one kind after the other, and what it makes of that.

    python -m tests.reliability.faults [--seed N] [--directory DIR]

For each fault of ``FAULTS``: a workload runs, the fault begins, the workload goes on (its calls may fail, it is told
so), the fault ends. The drive must be alive all the time, answer ``status`` and read what is in the cache; afterwards,
by itself or after it was mounted again, it must take new files, and keep everything that an fsync was answered for,
before the fault and during it. Its log must show sentences, never a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from layrfs.control import commands
from layrfs.errors import LayrError
from tests.drive import REPOSITORY, Failed, layrfs, wait_for
from tests.reliability.arena import Arena
from tests.reliability.disk import compiled
from tests.reliability.invariants import violations

EVERY = 1 << 30


class Fault(NamedTuple):
    """Which calls fail (see disk.c), below which part of the state directory, how, and after how many that pass."""

    what: str
    calls: str
    part: str
    code: int
    skip: int = 0
    count: int = EVERY


FAULTS = (
    Fault("cache files cannot grow", "w", "/cache/", errno.ENOSPC),
    Fault("every seventh write to cache files fails once", "w", "/cache/", errno.EIO, 6, 1),
    Fault("cache files cannot be flushed", "f", "/cache/", errno.EIO),
    Fault("one flush of a cache file fails", "f", "/cache/", errno.EIO, 2, 1),
    Fault("cache files cannot be opened for writing", "o", "/cache/", errno.EROFS),
    Fault("cache files cannot be cut or punched", "t", "/cache/", errno.EIO),
    Fault("cache files cannot be made or deleted", "n", "/cache/", errno.EROFS),
    Fault("the log is full", "w", "metadata.db-wal", errno.ENOSPC),
    Fault("the log cannot be written", "w", "metadata.db-wal", errno.EIO, 3),
    Fault("the log cannot be flushed", "f", "metadata.db-wal", errno.EIO),
    Fault("one flush of the log fails", "f", "metadata.db-wal", errno.EIO, 1, 1),
    Fault("the database file cannot be written", "wf", "metadata.db$", errno.EIO),
    Fault("changesets cannot be kept", "own", "/history/", errno.ENOSPC),
    Fault("everything is read-only", "owtnf", "/volumes/", errno.EROFS),
)


class Trial:
    """One drive that goes through all faults."""

    def __init__(self, arena: Arena, library: str, seed: int) -> None:
        self._arena = arena
        self._seed = seed
        self._fault = os.path.join(arena.directory, "fault")
        self._variables = {
            "LD_PRELOAD": library,
            "LAYRFS_DISK_ROOT": arena.drive.home,
            "LAYRFS_DISK_FAULT": self._fault,
        }
        arena.mount(self._variables)
        os.mkdir(arena.root)
        self._witness = os.path.join(arena.drive.path, "witness")
        with open(self._witness, "wb") as file:
            file.write(b"read me" * 1000)
        self._read_log()

    def go_through(self, fault: Fault) -> list[str]:
        """What is wrong, one sentence each."""
        self._seed += 1
        arena, broken = self._arena, []
        with open(self._witness, "rb") as file:
            file.read()
        self._work(15)
        with contextlib.suppress(LayrError):
            arena.sync()
        failed, during = self._work_while(fault)
        broken += during
        broken += self._heal()
        broken += arena.promises.check(arena.root)
        arena.promises.forget_failed(arena.root)
        arena.promises.adopt(arena.root)
        broken += self._settle()
        if "Traceback" in (text := self._read_log()):
            broken.append(f"a traceback in the log: {text[text.index('Traceback') - 300 :][:1500]}")
        print(f"{fault.what}: {failed}", file=sys.stderr)
        return broken

    def _work(self, steps: int) -> str:
        """A workload from beginning to end; which calls failed."""
        command = [sys.executable, "-m", "tests.reliability.workload", self._arena.root, str(self._seed)]
        command += [self._arena.notes, "--steps", str(steps)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode not in {0, -signal.SIGBUS}:  # which is what a mapping gets that cannot be read
            raise Failed(done.stderr)
        self._arena.take_notes()
        self._seed += 1
        return done.stdout.strip().rpartition("\n")[2]

    def _work_while(self, fault: Fault) -> tuple[str, list[str]]:
        """Which calls failed, and what else went wrong meanwhile."""
        with open(f"{self._fault}.new", "w", encoding="ascii") as file:
            file.write(f"{fault.calls} {fault.code} {fault.part} {fault.skip} {fault.count}\n")
        os.rename(f"{self._fault}.new", self._fault)
        try:
            failed = self._work(60)
            return failed, self._check_alive()
        finally:
            os.unlink(self._fault)

    def _check_alive(self) -> list[str]:
        if not self._is_alive():
            return ["the mount died"]
        broken = []
        try:
            self._arena.client.call(commands.STATUS, commands.Nothing())
            with open(self._witness, "rb") as file:
                if file.read() != b"read me" * 1000:
                    broken.append("a file reads wrong")
        except (LayrError, OSError) as error:
            broken.append(f"the drive does not answer: {error}")
        return broken

    def _is_alive(self) -> bool:
        process = self._arena.drive.process
        return process is not None and process.poll() is None

    def _heal(self) -> list[str]:
        """By itself, or by being mounted again."""
        path = os.path.join(self._arena.drive.path, "healed")
        try:
            with open(path, "wb") as file:
                file.write(b"healed")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            return self._mount_again()
        return []

    def _mount_again(self) -> list[str]:
        arena = self._arena
        layrfs(arena.drive.home, "umount", arena.drive.path, "--no-wait", check=False)
        try:
            wait_for(lambda: not self._is_alive(), "the mount ends when it is told to")
        except Failed as error:
            arena.crash()
            arena.mount(self._variables)
            return [str(error)]
        arena.crash()
        arena.mount(self._variables)
        return []

    def _settle(self) -> list[str]:
        arena = self._arena
        arena.sync()
        arena.drop_cache()
        broken = [f"from hosts: {one}" for one in arena.promises.check(arena.root)]
        arena.drive.umount()
        broken += violations(arena.database, arena.cache)
        arena.mount(self._variables)
        return broken

    def _read_log(self) -> str:
        with open(self._arena.drive.output, encoding="utf-8", errors="replace") as file:
            text = file.read()
        os.truncate(self._arena.drive.output, 0)
        return text


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory")
    parser.add_argument("--only", help="part of a fault's name")
    asked = parser.parse_args()
    started, bad = time.monotonic(), 0
    place = tempfile.TemporaryDirectory(dir=asked.directory, ignore_cleanup_errors=True)
    with place as directory, Arena(directory) as arena:
        trial = Trial(arena, compiled(directory), asked.seed * 1000)
        for fault in FAULTS:
            if asked.only is None or asked.only in fault.what:
                broken = trial.go_through(fault)
                bad += bool(broken)
                print(f"{fault.what}: {broken or 'as promised'}", flush=True)
    print(f"{bad} bad, {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
