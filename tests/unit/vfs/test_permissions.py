"""Ownership and mode bits, by the rules of POSIX and Linux."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.vfs.permissions import inherited, with_permissions, without_privileges

FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR


@pytest.mark.parametrize(
    ("mode", "parent_mode", "expected"),
    [
        (FILE | 0o644, DIRECTORY | 0o755, (FILE | 0o644, 5)),
        (FILE | 0o644, DIRECTORY | 0o2755, (FILE | 0o644, 9)),
        (DIRECTORY | 0o755, DIRECTORY | 0o755, (DIRECTORY | 0o755, 5)),
        (DIRECTORY | 0o755, DIRECTORY | 0o2755, (DIRECTORY | 0o2755, 9)),
        (stat.S_IFLNK | 0o777, DIRECTORY | 0o2755, (stat.S_IFLNK | 0o777, 9)),
    ],
)
def test_what_a_directory_passes_on(mode: int, parent_mode: int, expected: tuple[int, int]) -> None:
    assert inherited(mode, 5, parent_mode, 9) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (FILE | 0o4755, FILE | 0o755),
        (FILE | 0o6755, FILE | 0o755),
        (FILE | 0o2755, FILE | 0o755),
        (FILE | 0o2745, FILE | 0o2745),
        (FILE | 0o1644, FILE | 0o1644),
        (DIRECTORY | 0o6755, DIRECTORY | 0o6755),
    ],
)
def test_which_privileges_a_change_takes(mode: int, expected: int) -> None:
    assert without_privileges(mode) == expected


@given(mode=st.integers(0, 0o177777), wanted=st.integers(0, 2**32 - 1))
def test_chmod_never_changes_what_kind_of_file_it_is(mode: int, wanted: int) -> None:
    changed = with_permissions(mode, wanted)
    assert stat.S_IFMT(changed) == stat.S_IFMT(mode)
    assert stat.S_IMODE(changed) == wanted & 0o7777
