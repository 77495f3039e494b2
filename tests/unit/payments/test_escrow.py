"""An escrow that is anything but what was agreed: one clear sentence, whatever it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from layrfs.model.ledger import LedgerAccount, LedgerSigner
from layrfs.payments import envelopes
from layrfs.payments.escrow import escrow_faults
from layrfs.policy.pricing import starting_stroops
from tests.contract_terms import TERMS

REFUND = LedgerSigner("preauth", envelopes.refund(TERMS).hash, 2)
OWN, HOST = LedgerSigner("key", TERMS.escrow, 1), LedgerSigner("key", TERMS.host, 1)
NEEDED = starting_stroops(TERMS)
GOOD = LedgerAccount(
    key=TERMS.escrow,
    sequence=998 << 32,
    balance_stroops=NEEDED,
    thresholds=(2, 2, 2),
    signers=(HOST, REFUND, OWN),
    subentries=2,
)
STRANGER = LedgerSigner("key", bytes(32), 1)


def changed(signer: LedgerSigner, **fields: Any) -> LedgerSigner:
    return msgspec.structs.replace(signer, **fields)


def test_what_was_agreed_has_no_fault() -> None:
    assert escrow_faults(TERMS, GOOD, NEEDED) == ()
    richer = msgspec.structs.replace(GOOD, balance_stroops=NEEDED + 1, sequence=TERMS.last_setup_ledger << 32)
    assert escrow_faults(TERMS, richer, NEEDED) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": bytes(32)}, "not the contract's escrow"),
        ({"thresholds": (1, 2, 2)}, "thresholds"),
        ({"thresholds": (2, 2, 3)}, "thresholds"),
        ({"signers": (HOST, REFUND, OWN, STRANGER), "subentries": 3}, "not agreed on"),
        ({"signers": (HOST, REFUND, OWN, LedgerSigner("hash", bytes(32), 1))}, "a signer that was not agreed on"),
        ({"signers": (HOST, OWN)}, "lacks a signer"),
        ({"signers": (REFUND, OWN)}, "lacks a signer"),
        ({"signers": (HOST, REFUND)}, "lacks a signer"),
        ({"signers": (HOST, changed(REFUND, weight=1), OWN)}, "does not weigh"),
        ({"signers": (HOST, REFUND, changed(OWN, weight=3))}, "does not weigh"),
        ({"signers": (changed(HOST, weight=2), REFUND, OWN)}, "does not weigh"),
        ({"subentries": 3}, "entries that were not agreed on"),
        ({"sponsors": 2}, "somebody else pays the escrow's reserve"),
        ({"signers": (changed(HOST, sponsored=True), REFUND, OWN)}, "somebody else pays the escrow's reserve"),
        ({"sponsoring": 1}, "pays somebody else's reserve"),
        ({"flags": 1}, "flags"),
        ({"liabilities_stroops": 1}, "owes something"),
        ({"balance_stroops": NEEDED - 1}, "holds less than"),
        ({"sequence": envelopes.sequence(TERMS, 1)}, "past an instalment"),
    ],
    ids=str,
)
def test_one_sentence_for_each_fault(change: dict[str, Any], words: str) -> None:
    found = escrow_faults(TERMS, msgspec.structs.replace(GOOD, **change), NEEDED)
    assert any(words in each for each in found)
    assert len(found) == (2 if "subentries" in change and "signers" in change else 1)


def test_a_refund_that_was_not_agreed_is_two_faults() -> None:
    """An owner who could have the money back early: a signer too many, and one missing."""
    early = envelopes.refund(msgspec.structs.replace(TERMS, window_seconds=1)).hash
    found = escrow_faults(TERMS, msgspec.structs.replace(GOOD, signers=(HOST, OWN, changed(REFUND, key=early))), NEEDED)
    assert len(found) == 2


def test_a_missing_escrow_is_said_so() -> None:
    assert escrow_faults(TERMS, None, NEEDED) == ("the escrow is not on the ledger",)


def test_claims_move_the_sequence_number_and_that_is_no_fault() -> None:
    claimed = msgspec.structs.replace(GOOD, sequence=envelopes.sequence(TERMS, 2))
    assert escrow_faults(TERMS, claimed, NEEDED, passed=2) == ()
    assert len(escrow_faults(TERMS, claimed, NEEDED, passed=1)) == 1
