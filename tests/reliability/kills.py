"""Who is killed, and when: the matrix of ``kill -9``.

    python -m tests.reliability.kills --count 1000 --seed 1 [--directory DIR]

Every turn lets a workload run on a mount, kills somebody with SIGKILL (at a random moment, or at a named crash point),
mounts again where that is needed, and compares what is there with what the workload was promised. Now and then all is
synced, the cache emptied and everything read again from hosts; the volume is unmounted and its invariants are checked.
Prints a table, and every broken promise with the seed of its turn.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from layrfs.crashpoints import POINTS
from layrfs.errors import LayrError
from tests.drive import Failed, layrfs, wait_for
from tests.reliability.arena import Arena
from tests.reliability.invariants import violations

SETTLE_EVERY = 10
REACH_SECONDS = 120.0
SYNC_SECONDS = 240.0
"""A host that was killed in the middle of a call is given up after a minute."""

ELSEWHERE = {
    "retired pieces dropped",  # an hour later: tests/unit/app/test_publishing.py has the clock for that
    *("shards marked", "shards removed", "contents moved"),  # takes garbage: tests/mount/test_gc.py
    *("pieces made anew", "pieces replaced"),  # takes pieces that are gone: tests/mount/test_patching.py
    *("ledger written", "ledger closed"),  # takes a ledger: tests/hosts/test_ledger.py
    *("intent kept", "transaction sent", "intent forgotten"),  # takes a ledger: tests/hosts/test_wallet.py
    *(name for name in POINTS if name.startswith("fsck: ")),  # takes damage: tests/mount/test_fsck.py
    # Take money: tests/mount/test_paid.py, tests/hosts/test_paid_host.py, tests/unit/upkeep/test_paymaster_crashes.py.
    *(name for name, sentence in POINTS.items() if sentence.startswith(("Owner: ", "Paid host: "))),
}
"""Crash points that other tests reach."""

OF_HOSTS = tuple(
    name for name, sentence in POINTS.items() if sentence.startswith("Host: ") or name.startswith("new file")
)
OF_RECOVER = tuple(name for name, sentence in POINTS.items() if sentence.startswith("recover: "))
OF_START = ("cache examined",)
OF_MOUNT = tuple(name for name in POINTS if name not in {*OF_HOSTS, *OF_RECOVER, *OF_START, *ELSEWHERE})


@dataclass
class Row:
    """One line of the table."""

    kills: int = 0
    fsynced: int = 0
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Matrix:
    """Turn after turn on one arena."""

    def __init__(self, arena: Arena, seed: int) -> None:
        self._arena = arena
        self._seed = seed
        self._turns = 0
        self.rows: dict[str, Row] = {}
        arena.mount()
        os.mkdir(arena.root)
        os.setxattr(arena.root, "user.layrfs.sharding", b"count:3")  # so that blocks are resized

    def turn(self, what: str, following: str) -> None:
        """One kill and what comes of it. The drive is left as the ``following`` turn needs it."""
        self._turns += 1
        seed = self._seed * 100_000 + self._turns
        row, started, fsynced = self.rows.setdefault(what, Row()), time.monotonic(), self._arena.promises.fsynced
        try:
            self._kill(what, random.Random(seed), seed)
            is_last = self._turns % SETTLE_EVERY == 0
            self._mount_for("the mount" if is_last else following, seed)
            row.broken += [f"turn {seed}: {one}" for one in self._broken()]
            if is_last:
                row.broken += [f"turn {seed}, settled: {one}" for one in self.settle()]
                self._mount_for(following, seed)
        except (Failed, LayrError, OSError) as error:
            row.broken.append(f"turn {seed}: {error}")
            self._start_afresh()
            self._mount_for(following, seed)
        row.kills += 1
        row.fsynced += self._arena.promises.fsynced - fsynced
        row.seconds += time.monotonic() - started

    def _broken(self) -> list[str]:
        """Promises that are not kept. The drive may have died meanwhile at the point that the next turn is about."""
        arena = self._arena
        try:
            broken = arena.promises.check(arena.root)
        except OSError:
            broken = ["the drive is gone"]
        if broken and arena.has_crashed():
            arena.crash()
            arena.mount()
            broken = arena.promises.check(arena.root)
        arena.promises.adopt(arena.root)
        return broken

    def _mount_for(self, what: str, seed: int) -> None:
        """Points of the mount are armed when it is started; it may die of it before it is mounted."""
        arena = self._arena
        is_mounted = arena.drive.process is not None and arena.drive.process.poll() is None
        if is_mounted and what not in OF_MOUNT:
            return
        arena.crash()
        if what not in OF_MOUNT:
            arena.mount()
            return
        try:
            arena.mount(arena.arm(what, 1 + seed % 4))
        except Failed:
            if not arena.has_crashed():
                raise
            arena.mount()

    def settle(self) -> list[str]:
        """Hosts have what the cache had, and rows and files fit together."""
        arena = self._arena
        arena.sync()
        arena.drop_cache()
        broken = arena.promises.check(arena.root)
        arena.drive.umount()
        broken += violations(arena.database, arena.cache)
        arena.mount()
        return broken

    def _start_afresh(self) -> None:
        """A turn went wrong: the next one shall not suffer from it."""
        self._arena.stop_workload()
        self._arena.network.restart()
        self._arena.crash()
        self._arena.mount()
        self._arena.promises.adopt(self._arena.root)

    # ------------------------------------------------------------------ the killing

    def _kill(self, what: str, dice: random.Random, seed: int) -> None:
        if what in POINTS:
            self._kill_at(what, dice, seed)
            return
        self._arena.start_workload(seed)
        with busy(self._arena) if dice.random() < 0.7 else contextlib.nullcontext():
            self._arena.wait_for_notes(int(dice.paretovariate(0.7) * 200) % 30_000)
            RANDOM[what](self._arena)

    def _kill_at(self, point: str, dice: random.Random, seed: int) -> None:
        if point in OF_RECOVER:
            self._recover(point)
        elif point in OF_START:
            self._die_while_mounting(point, seed)
        elif point in OF_HOSTS:
            self._die_in_host(point, dice, seed)
        else:
            self._die_in_mount(point, seed)

    def _die_in_mount(self, point: str, seed: int) -> None:
        """In the mount, or in one of its workers."""
        arena = self._arena
        self._work_until_crashed(point, seed)
        arena.wait_for_notes(500)
        arena.stop_workload()

    def _die_in_host(self, point: str, dice: random.Random, seed: int) -> None:
        arena = self._arena
        try:
            arena.network.restart(arena.arm(point, dice.randrange(1, 4)))
        except Failed:
            if not arena.has_crashed():  # else it died before it was ready, which is as good a moment as any
                raise
            arena.network.restart()
        arena.start_workload(seed)
        with busy(arena):
            wait_for(arena.has_crashed, f"{point!r} was reached", REACH_SECONDS)
            arena.network.restart()
        arena.stop_workload()

    def _work_until_crashed(self, point: str, seed: int) -> None:
        self._arena.start_workload(seed)
        with busy(self._arena):
            wait_for(self._arena.has_crashed, f"{point!r} was reached", REACH_SECONDS)

    def _die_while_mounting(self, point: str, seed: int) -> None:
        arena = self._arena
        arena.start_workload(seed)
        arena.wait_for_notes(3000)
        arena.crash()
        arena.stop_workload()
        with contextlib.suppress(Failed):
            arena.mount(arena.arm(point))
        if not arena.has_crashed():
            raise Failed(f"{point!r} was not reached")
        arena.crash()

    def _recover(self, point: str) -> None:
        """On another machine, twice: the second time it must succeed and show what the first one has."""
        arena = self._arena
        arena.sync()
        with tempfile.TemporaryDirectory(dir=arena.directory) as home:
            recover_twice(arena, home, point)


def recover_twice(arena: Arena, home: str, point: str) -> None:
    """``layrfs recover`` dies at a point, and is called again."""
    phrase = os.path.join(os.path.dirname(arena.drive.home), "phrase")
    command = ["recover", "--phrase-file", phrase, *arena.network.seeds]
    layrfs(home, *command, check=False, variables=arena.arm(point))
    if not arena.has_crashed():
        raise Failed(f"{point!r} was not reached")
    layrfs(home, *command)


@contextlib.contextmanager
def busy(arena: Arena) -> Iterator[None]:
    """Meanwhile somebody syncs, empties the cache and reads, again and again."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.01):
            with contextlib.suppress(LayrError, OSError):  # the drive is gone, or a host
                arena.sync()
                arena.drop_cache()
                arena.read_all()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(SYNC_SECONDS)
    if thread.is_alive():
        raise Failed(f"`sync` has not returned within {SYNC_SECONDS:.0f} s, although hosts are back")


def kill_mount(arena: Arena) -> None:
    """Only the mount: its workers see that it is gone."""
    arena.crash()
    arena.stop_workload()


def kill_workers(arena: Arena) -> None:
    """The mount goes on."""
    arena.kill_workers()
    arena.wait_for_notes(1000)
    arena.stop_workload()


def kill_hosts(arena: Arena) -> None:
    """All five; the mount goes on, and they come back."""
    arena.network.restart()
    arena.wait_for_notes(1000)
    arena.stop_workload()


def kill_everything(arena: Arena) -> None:
    """Nothing is left running."""
    arena.kill_everything()
    arena.stop_workload()
    arena.network.start()


RANDOM: dict[str, Callable[[Arena], None]] = {
    "the mount": kill_mount,
    "its workers": kill_workers,
    "all hosts": kill_hosts,
    "everything": kill_everything,
}
SHARES = (4, 1, 1, 2)
"""How often each is killed at random moments."""


def plan(count: int, seed: int) -> Iterator[str]:
    """Half of the turns at random moments, half at crash points in order."""
    dice = random.Random(seed)
    points = itertools.cycle([*OF_MOUNT, *OF_HOSTS, *OF_START, *OF_RECOVER])
    for number in range(count):
        yield next(points) if number % 2 else dice.choices(list(RANDOM), SHARES)[0]


def table(rows: dict[str, Row]) -> str:
    """As it stands in docs/reliability.md."""
    lines = ["| killed | times | fsyncs answered | promises broken |", "|---|---|---|---|"]
    lines += [f"| {what} | {row.kills} | {row.fsynced} | {len(row.broken)} |" for what, row in rows.items()]
    total = [sum(row.kills for row in rows.values()), sum(row.fsynced for row in rows.values())]
    broken = sum(len(row.broken) for row in rows.values())
    return "\n".join([*lines, f"| **all** | **{total[0]}** | **{total[1]}** | **{broken}** |"])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory")
    parser.add_argument("--only", help="one row of the table")
    asked = parser.parse_args()
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(dir=asked.directory, ignore_cleanup_errors=True) as directory,
        Arena(directory) as arena,
    ):
        matrix = Matrix(arena, asked.seed)
        turns = [asked.only] * asked.count if asked.only else list(plan(asked.count, asked.seed))
        for number, (what, following) in enumerate(itertools.pairwise([*turns, "the mount"])):
            known = len(matrix.rows.get(what, Row()).broken)
            matrix.turn(what, following)
            for sentence in matrix.rows[what].broken[known:]:
                print(f"{what}: {sentence}", flush=True)
            if number % 20 == 0:
                print(f"{number} turns, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        broken = matrix.settle()
    print(table(matrix.rows))
    print(f"{time.monotonic() - started:.0f} s; at the end: {broken or 'all in order'}")
    return 1 if broken or any(row.broken for row in matrix.rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
