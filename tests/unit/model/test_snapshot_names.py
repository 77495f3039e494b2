"""What a snapshot may be called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import InvalidArgument
from layrfs.model.snapshot_names import check_name, free_name, time_name


def test_a_time_is_written_without_colons() -> None:
    assert time_name(1795780800999) == "2026-11-27T12-00-00Z"
    assert time_name(0) == "1970-01-01T00-00-00Z"


@given(st.integers(0, 2**63 - 1))
def test_any_clock_gives_a_name(time_ms: int) -> None:
    with pytest.raises(InvalidArgument):
        check_name(time_name(time_ms))


def test_a_second_snapshot_of_one_second_gets_a_number() -> None:
    taken = {"1970-01-01T00-00-00Z", "1970-01-01T00-00-00Z-2"}
    assert free_name(5, taken) == "1970-01-01T00-00-00Z-3"
    assert free_name(5, ()) == "1970-01-01T00-00-00Z"


@pytest.mark.parametrize("name", ["before the move", "v1.2", "größer", "2026"])
def test_good_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\nb", "a\0b", "x" * 201, "\udcff", "2026-11-27T12-00-00Z", "\x1b[31m"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_name(name)
