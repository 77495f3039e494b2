"""A contract's terms for tests, and a hypothesis strategy for all that are possible."""

from __future__ import annotations

import hashlib

import msgspec
from hypothesis import strategies as st

from layrfs.ids import NodeId
from layrfs.model.contracts import LATEST_LEDGER, LONGEST_WINDOW_SECONDS, MOST_STROOPS, Terms

LEDGER_NAME = "LayrFS development ledger ; tests"
TERMS = Terms(
    owner=bytes([1]) * 32,
    host=bytes([2]) * 32,
    escrow=bytes([3]) * 32,
    node=NodeId(bytes([4]) * 20),
    tenant=bytes([5]) * 32,
    number=7,
    start=1_800_000_000,
    window_seconds=648_000,
    instalments=4,
    price=2 * 10**7,
    deposit_stroops=10**7,
    last_setup_ledger=1_000,
    collateral_stroops=0,
    memo=bytes([6]) * 32,
    owner_sequence=990 << 32 | 1,
    network=hashlib.sha256(LEDGER_NAME.encode()).digest(),
)

keys = st.binary(min_size=32, max_size=32)


@st.composite
def all_terms(draw: st.DrawFn) -> Terms:
    owner, host, escrow = draw(st.lists(keys, min_size=3, max_size=3, unique=True))
    return msgspec.structs.replace(
        TERMS,
        owner=owner,
        host=host,
        escrow=escrow,
        number=draw(st.integers(0, 2**16 - 1)),
        start=draw(st.integers(0, 2**32 - 1)),
        window_seconds=draw(st.integers(1, LONGEST_WINDOW_SECONDS)),
        instalments=draw(st.integers(2, 64)),
        price=draw(st.integers(1, MOST_STROOPS)),
        deposit_stroops=draw(st.integers(1, MOST_STROOPS)),
        last_setup_ledger=draw(st.integers(1, LATEST_LEDGER)),
        collateral_stroops=draw(st.integers(0, MOST_STROOPS)),
        owner_sequence=draw(st.integers(1, 2**63 - 1)),
    )
