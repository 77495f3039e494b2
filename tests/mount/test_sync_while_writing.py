"""`layrfs sync` and snapshots while programs never stop writing: they end, and have what was there at the call."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.drive import Drive, HostNetwork, layrfs
from tests.trees import MIB

SYNC_SECONDS = 120.0
"""Who writes never ends, so any time would show it."""


class Counter(threading.Thread):
    """Writes growing numbers into the first block of a file, and into its end, which moves on."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.reached = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(self._file, bytes(6 * MIB), 0)
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.002):
            number = (self.reached + 1).to_bytes(8, "big")
            os.pwrite(self._file, number, 4096)
            os.pwrite(self._file, number * 512, 6 * MIB + 4096 * self.reached)
            self.reached += 1

    def end(self) -> None:
        self._over.set()
        self.join()
        os.close(self._file)


@contextmanager
def counting(path: str) -> Iterator[Counter]:
    counter = Counter(path)
    counter.start()
    try:
        yield counter
    finally:
        counter.end()


def number_in(path: str) -> int:
    with open(path, "rb") as file:
        file.seek(4096)
        return int.from_bytes(file.read(8), "big")


@pytest.mark.parametrize("option", ["writeback", "nowriteback"])
def test_sync_ends_and_what_was_written_before_it_is_on_another_machine(
    hosts: HostNetwork, tmp_path: Path, option: str
) -> None:
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds, options=[option]) as first:
        with counting(os.path.join(first.path, "busy")) as counter:
            first.sync(seconds=SYNC_SECONDS)
            at_the_call = counter.reached
            first.sync(seconds=SYNC_SECONDS)
        first.crash()
        shutil.rmtree(first.home)
    second = Drive(str(tmp_path / "second"), seeds=hosts.seeds, options=["take_over"])
    layrfs(second.home, "recover", "--phrase-file", str(tmp_path / "first" / "phrase"), *hosts.seeds)
    with second:
        assert number_in(os.path.join(second.path, "busy")) >= at_the_call > 0


def test_a_snapshot_has_what_was_there_at_the_call(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds, options=["nowriteback"]) as drive:
        with counting(os.path.join(drive.path, "busy")) as counter:
            drive.sync(seconds=SYNC_SECONDS)
            at_the_call = counter.reached
            place = layrfs(drive.home, "snapshot", "create", "now", seconds=SYNC_SECONDS).stdout.splitlines()[0]
            at_the_end = counter.reached
        being_written = at_the_end + 1
        assert being_written >= number_in(os.path.join(place, "busy")) >= at_the_call > 0
