"""How redundancy is written and what is not one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import UsageError
from layrfs.model.redundancy import DEFAULT_REDUNDANCY, Redundancy, is_possible


@pytest.mark.parametrize("total", range(1, 17))
def test_mirrors(total: int) -> None:
    parsed = Redundancy.parse(f"mirror:{total}")
    assert parsed == Redundancy(needed=1, total=total)
    assert str(parsed) == f"mirror:{total}"


def test_three_copies_unless_told_otherwise() -> None:
    assert str(DEFAULT_REDUNDANCY) == "mirror:3"
    assert Redundancy.parse(" mirror:3\n") == DEFAULT_REDUNDANCY


@pytest.mark.parametrize(("text", "needed", "total"), [("rs:4/8", 4, 8), (" rs:2/3\n", 2, 3), ("rs:31/32", 31, 32)])
def test_codes(text: str, needed: int, total: int) -> None:
    parsed = Redundancy.parse(text)
    assert parsed == Redundancy(needed, total)
    assert str(parsed) == text.strip()


@pytest.mark.parametrize(
    "text", ["", "mirror", "mirror:", "mirror:0", "mirror:17", "mirror:-1", "mirror:03", "mirror:3.0", "mirror:\u0663",
             "mirror: 3", "Mirror:3", "mirror:99999999999", "mirror:3:3", "mirror:200", "rs", "rs:4", "rs:4/", "rs:/8",
             "rs:0/3", "rs:1/3", "rs:5/4", "rs:4/4", "rs:4/33", "rs:04/8", "rs:4/8/9", "rs:-4/8", "rs:4 /8", "RS:4/8",
             "rs:\u0664/8", "rs:4/99999999999"],
)  # fmt: skip
def test_what_is_refused_is_quoted_in_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"mirror:N .* or rs:K/N .* not ") as refused:
        Redundancy.parse(text)
    assert "\n" not in str(refused.value)


@given(st.text(max_size=12))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert Redundancy.parse(text).total <= 32


@given(st.integers(-3, 70_000) | st.integers(-3, 40), st.integers(-3, 70_000) | st.integers(-3, 40))
def test_what_there_is_can_be_spelled_and_what_is_impossible_is_none(needed: int, total: int) -> None:
    if not is_possible(needed, total):
        with pytest.raises(ValueError, match="no redundancy"):
            Redundancy(needed, total)
    elif total <= 16 or needed > 1:
        assert Redundancy.parse(str(Redundancy(needed, total))) == Redundancy(needed, total)


@pytest.mark.parametrize(("needed", "total"), [(0, 3), (4, 3), (-1, 1), (1, 2**16), (3, 3), (4, 33)])
def test_impossible_codes(needed: int, total: int) -> None:
    with pytest.raises(ValueError, match="no redundancy"):
        Redundancy(needed, total)


@given(st.integers(1, 5 << 20), st.integers(2, 31))
def test_pieces_of_a_code_hold_the_shard_and_little_more(sealed_bytes: int, needed: int) -> None:
    piece_bytes = Redundancy(needed, needed + 1).piece_bytes(sealed_bytes)
    assert piece_bytes % 16 == 0
    assert sealed_bytes < needed * piece_bytes <= sealed_bytes + 16 * needed
    assert Redundancy(1, 3).piece_bytes(sealed_bytes) == sealed_bytes
