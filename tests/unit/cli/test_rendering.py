"""How numbers, names and progress look. Pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.cli.progress import progress_line
from layrfs.cli.rendering import shown_bytes, shown_count, shown_path, shown_seconds, table
from layrfs.model.status import ProgressReport


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10 << 20, "10 MiB"),
        (1023 << 20, "1023 MiB"),
        (20 << 30, "20 GiB"),
        (5 << 60, "5120 PiB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert shown_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-3, "0 s"), (59.4, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (90_000, "1 d 1 h")],
)
def test_seconds(seconds: float, text: str) -> None:
    assert shown_seconds(seconds) == text


def test_counts() -> None:
    assert [shown_count(count, "file") for count in (0, 1, 5012)] == ["0 files", "1 file", "5,012 files"]


@given(st.binary(max_size=40))
def test_no_name_can_steer_a_terminal(name: bytes) -> None:
    shown = shown_path(name)
    assert shown.isprintable()
    shown.encode()


def test_a_table_is_aligned() -> None:
    assert table([("a", "bbb"), ("aaa", "b")], indent="  ") == ["  a    bbb", "  aaa  b"]
    assert table([]) == []


def test_progress_lines() -> None:
    line = progress_line("syncing", ProgressReport(50 << 20, 100 << 20, "two hosts"), 10 << 20)
    assert line == "syncing  [############............]  50%  50 MiB of 100 MiB  10 MiB/s  5 s left  two hosts"
    assert progress_line("x", ProgressReport(), 0.0) == "x"
    assert "100%" in progress_line("x", ProgressReport(7, 5), 0.0)
