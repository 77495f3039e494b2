"""The clock of leases goes while the host serves, and never jumps."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from layrfs.host.lease_clock import LeaseClock


class Monotonic:
    def __init__(self) -> None:
        self.time = 50.0

    def __call__(self) -> float:
        return self.time


def test_it_counts_the_seconds_of_being_there(tmp_path: Path) -> None:
    (tmp_path / "leases").write_text("1000\n")
    monotonic = Monotonic()
    clock = LeaseClock(str(tmp_path), monotonic=monotonic)
    assert clock.now() == 1000
    monotonic.time += 30
    assert clock.now() == 1030
    clock.save()
    monotonic.time += 10_000
    assert LeaseClock(str(tmp_path), monotonic=monotonic).now() == 1030, "nobody could renew while it was away"


@pytest.mark.parametrize("content", [None, b"", b"tomorrow\n"])
def test_without_its_file_it_goes_on_where_something_was_last_stored(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "pieces" / "00").mkdir(parents=True)
    (tmp_path / "pieces" / "ff").mkdir()
    os.utime(tmp_path / "pieces" / "00", (1, 5000))
    os.utime(tmp_path / "pieces" / "ff", (1, 7000))
    if content is not None:
        (tmp_path / "leases").write_bytes(content)
    assert LeaseClock(str(tmp_path), monotonic=Monotonic()).now() == 7000


def test_a_new_host_begins_today(tmp_path: Path) -> None:
    before = time.time()
    assert before <= LeaseClock(str(tmp_path), monotonic=Monotonic()).now() <= time.time()


def test_a_full_disk_does_not_stop_it(tmp_path: Path) -> None:
    clock = LeaseClock(str(tmp_path / "gone"), monotonic=Monotonic())
    clock.save()
