"""Directories made with all that is missing above them, and what is in the way of that."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from layrfs.durable import make_directory


def test_directories_above_are_made_too_all_of_them_private(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b" / "c"
    for _ in range(2):
        make_directory(str(directory))
    assert {stat.S_IMODE(os.stat(each).st_mode) for each in (directory, *directory.parents[:2])} == {0o700}


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        make_directory(str(tmp_path / "a"))
    with pytest.raises(OSError, match="Not a directory"):
        make_directory(str(tmp_path / "a" / "b"))
