"""Terms: windows that lie side by side, one id for each, and nothing absurd from strangers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import BadMessage
from layrfs.model.contracts import Terms, terms_untrusted
from tests.contract_terms import TERMS, all_terms


@given(all_terms(), st.data())
def test_windows_are_disjoint_adjacent_and_before_the_end(terms: Terms, data: st.DataObject) -> None:
    windows = [terms.window(number) for number in range(terms.instalments)]
    assert windows[0][0] == terms.start
    assert all(one[1] + 1 == two[0] for one, two in pairwise(windows))
    assert windows[-1][1] + 1 == terms.end
    number = data.draw(st.integers(0, terms.instalments - 1))
    assert [terms.instalment_at(second) for second in windows[number]] == [number, number]
    assert terms.instalment_at(windows[number][1] + 0.9) == number
    assert terms.instalment_at(terms.start - 0.1) is terms.instalment_at(terms.end) is None


@given(all_terms())
def test_terms_survive_the_wire(terms: Terms) -> None:
    assert terms_untrusted(terms.to_bytes()) == terms


def test_every_field_makes_another_contract() -> None:
    others = {TERMS.contract_id}
    for field in TERMS.__struct_fields__:
        value = getattr(TERMS, field)
        changed = value + 1 if isinstance(value, int) else bytes([value[0] ^ 1]) + value[1:]
        others.add(msgspec.structs.replace(TERMS, **{field: changed}).contract_id)
    assert len(others) == 1 + len(TERMS.__struct_fields__)


@pytest.mark.parametrize(
    "change",
    [
        {"price": -1},
        {"price": 0},
        {"price": 10**18},
        {"deposit_stroops": -1},
        {"deposit_stroops": 10**18},
        {"collateral_stroops": -1},
        {"instalments": 1},
        {"instalments": 65},
        {"window_seconds": 0},
        {"window_seconds": 10**9},
        {"start": -1},
        {"start": 2**32},
        {"last_setup_ledger": 0},
        {"last_setup_ledger": 2**31},
        {"owner_sequence": 0},
        {"owner_sequence": 2**63},
        {"number": 2**16},
        {"owner": b"short"},
        {"network": bytes(33)},
        {"price": 1.5},
        {"escrow": TERMS.owner},
        {"escrow": TERMS.host},
        {"host": TERMS.owner},
    ],
    ids=str,
)
def test_absurd_terms_are_no_terms(change: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        terms_untrusted(msgspec.structs.replace(TERMS, **change).to_bytes())


@given(st.binary(max_size=600))
def test_rubbish_is_no_terms(data: bytes) -> None:
    with pytest.raises(BadMessage):
        terms_untrusted(data)
