"""How redundancy is written and what is not one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import UsageError
from layrfs.model.redundancy import DEFAULT_REDUNDANCY, Redundancy


@pytest.mark.parametrize("total", range(1, 17))
def test_mirrors(total: int) -> None:
    parsed = Redundancy.parse(f"mirror:{total}")
    assert parsed == Redundancy(needed=1, total=total)
    assert str(parsed) == f"mirror:{total}"


def test_three_copies_unless_told_otherwise() -> None:
    assert str(DEFAULT_REDUNDANCY) == "mirror:3"
    assert Redundancy.parse(" mirror:3\n") == DEFAULT_REDUNDANCY


def test_codes_have_a_spelling() -> None:
    assert str(Redundancy(4, 8)) == "rs:4/8"


@pytest.mark.parametrize(
    "text", ["", "mirror", "mirror:", "mirror:0", "mirror:17", "mirror:-1", "mirror:03", "mirror:3.0", "mirror:\u0663",
             "mirror: 3", "Mirror:3", "rs:4/8", "mirror:99999999999", "mirror:3:3"],
)  # fmt: skip
def test_what_is_refused_is_quoted(text: str) -> None:
    with pytest.raises(UsageError, match="mirror:N"):
        Redundancy.parse(text)


@given(st.text(max_size=12))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert Redundancy.parse(text).total <= 16


@pytest.mark.parametrize(("needed", "total"), [(0, 3), (4, 3), (-1, 1), (1, 2**16)])
def test_impossible_codes(needed: int, total: int) -> None:
    with pytest.raises(ValueError, match="no redundancy"):
        Redundancy(needed, total)
