"""Terms that a host must not agree to: one clear sentence for each thing that is wrong, and none when nothing is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from layrfs.ids import NodeId
from layrfs.model.contracts import Offer, Terms
from layrfs.model.ledger import LedgerHead
from layrfs.policy.agreeing import MOST_SETUP_LEDGERS, terms_faults
from tests.contract_terms import TERMS

HEAD = LedgerHead(sequence=988, closed_at=TERMS.start - 3, base_reserve_stroops=5_000_000, base_fee_stroops=100)
OFFER = Offer(price=TERMS.price, account=TERMS.host, network=TERMS.network, most_instalments=12)


def faults(terms: Terms) -> tuple[str, ...]:
    return terms_faults(terms, OFFER, TERMS.node, TERMS.tenant, HEAD)


def test_what_was_offered_is_agreed_to() -> None:
    assert faults(TERMS) == ()
    assert faults(msgspec.structs.replace(TERMS, price=TERMS.price + 1)) == ()
    assert faults(msgspec.structs.replace(TERMS, last_setup_ledger=HEAD.sequence + MOST_SETUP_LEDGERS)) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": bytes(32)}, "another ledger"),
        ({"node": NodeId(bytes(20))}, "another host"),
        ({"host": bytes(32)}, "another account"),
        ({"tenant": bytes(32)}, "another tenant"),
        ({"price": TERMS.price - 1}, "1.9999999 XLM for a TiB and 30 days, and the host asks for 2"),
        ({"instalments": 13}, "13 instalments, and the host takes 2 to 12"),
        ({"window_seconds": 60}, "windows of 60 seconds, and the host takes 3,600 to 2,678,400"),
        ({"collateral_stroops": 5_000_000}, "want 0.5 XLM of the host, and it gives 0 at most"),
        ({"start": TERMS.start - 3600}, "start in the past"),
        ({"start": TERMS.start + 3600}, "too far ahead"),
        ({"last_setup_ledger": HEAD.sequence}, "a ledger that is past"),
        ({"last_setup_ledger": HEAD.sequence + MOST_SETUP_LEDGERS + 1}, "too far ahead"),
        ({"deposit_stroops": 3}, "less into the escrow than a stroop for each instalment"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_one_sentence_for_each_fault(change: dict[str, Any], words: str) -> None:
    found = faults(msgspec.structs.replace(TERMS, **change))
    assert len(found) == 1
    assert words in found[0]


def test_all_faults_are_named() -> None:
    wrong = msgspec.structs.replace(TERMS, network=bytes(32), host=bytes(32), price=1)
    assert len(faults(wrong)) == 3
