from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import UsageError
from layrfs.model.lumens import MOST_STROOPS, parse_lumens, shown_lumens


@given(st.integers(0, MOST_STROOPS))
def test_what_is_shown_is_what_is_meant(stroops: int) -> None:
    assert parse_lumens(shown_lumens(stroops)) == stroops


@pytest.mark.parametrize(
    ("text", "stroops"), [("2", 20_000_000), ("0.25", 2_500_000), (" 0.0000001 ", 1), ("10.50", 105_000_000)]
)
def test_amounts_as_people_write_them(text: str, stroops: int) -> None:
    assert parse_lumens(text) == stroops


@pytest.mark.parametrize("text", ["", "-1", "1e3", "1,5", "0.00000001", ".5", "1.", "999999999999", "XLM", "٣"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no amount of XLM"):
        parse_lumens(text)


def test_no_zeros_at_the_end() -> None:
    assert [shown_lumens(stroops) for stroops in (0, 10_000_000, 2_500_000, -1)] == ["0", "1", "0.25", "-0.0000001"]
