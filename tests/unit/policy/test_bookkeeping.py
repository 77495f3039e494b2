"""What records of money say that cannot be so."""

from __future__ import annotations

import pytest

from layrfs.policy.bookkeeping import Receipts, Recorded, record_faults
from layrfs.policy.paymaster import Batch, Contract, Instalment
from tests.contract_terms import TERMS

BATCH = Batch(0, 0, TERMS.start, 100, (bytes(32),) * 4, covered=True)


def recorded(*receipts: Receipts, instalment: Instalment | None = None, payment: bytes | None = None) -> Recorded:
    instalments = (instalment or Instalment(), *(Instalment(),) * 3)
    return Recorded(Contract(0, TERMS, "open", (BATCH,), instalments), (payment, None, None, None), receipts)


@pytest.mark.parametrize(
    "receipts", [Receipts(0, 2, 2, 100), Receipts(0, 2, 1, 50), Receipts(0, 2, 0, 0)], ids=["all", "some", "none"]
)
def test_a_cover_fits_the_pieces_that_are_still_in_files(receipts: Receipts) -> None:
    assert list(record_faults(recorded(receipts))) == []


@pytest.mark.parametrize(
    ("receipts", "sentence"),
    [
        ((Receipts(0, 2, 2, 99),), "is for 100 bytes, and its pieces have 99"),
        ((Receipts(0, 2, 1, 101),), "is for 100 bytes, and its pieces have 101"),
        ((Receipts(0, 2, 2, 100), Receipts(1, 1, 0, 0)), "no such cover"),
        ((), "has no pieces"),
    ],
)
def test_a_cover_that_does_not_fit_is_said(receipts: tuple[Receipts, ...], sentence: str) -> None:
    (fault,) = record_faults(recorded(*receipts))
    assert sentence in fault


def test_what_was_paid_has_a_transaction() -> None:
    good = Receipts(0, 2, 2, 100)
    assert list(record_faults(recorded(good, instalment=Instalment("claimed", 5), payment=bytes(32)))) == []
    assert list(record_faults(recorded(good, instalment=Instalment("claimed", 5))))
    assert list(record_faults(recorded(good, payment=bytes(32))))
