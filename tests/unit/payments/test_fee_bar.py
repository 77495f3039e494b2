"""What a year costs beside storage: one TiB on twenty hosts, every transaction counted as it would be submitted."""

from __future__ import annotations

import msgspec
import pytest
from stellar_sdk import TransactionEnvelope

from layrfs.model.contracts import INSTALMENTS, WINDOW_SECONDS, Lock, Terms
from layrfs.payments import envelopes
from layrfs.payments.envelopes import Envelope
from layrfs.policy import paymaster
from layrfs.policy.pricing import amounts_with, escrow_needs, increments, locked_stroops
from tests.contract_ledger import Scene, answer_to, as_read, lock_of
from tests.contract_terms import LEDGER_NAME, TERMS

XLM = 10**7
HOSTS, YEAR_SECONDS = 20, 365 * 86_400
BYTES_EACH = (1 << 40) // HOSTS
COVER_BYTES = 1 << 30
"""The more covers the more top-ups: one for each GiB is many."""


def test_a_year_of_a_tebibyte_costs_less_than_a_tenth_of_a_lumen_in_fees() -> None:
    deposit = paymaster.deposit(2 * XLM, left_per_month=None, instalments=INSTALMENTS, window_seconds=WINDOW_SECONDS)
    assert deposit is not None
    terms = msgspec.structs.replace(
        TERMS, price=2 * XLM, instalments=INSTALMENTS, window_seconds=WINDOW_SECONDS, deposit_stroops=deposit
    )
    claims = [envelopes.claim(terms, at, Lock(10**6, bytes(32))) for at in range(INSTALMENTS)]
    end = envelopes.settle(terms, host_stroops=1, sequence_number=1, last_second=terms.end)
    assert (fee_of(envelopes.refund(terms)), fee_of(end)) == (100, 200)
    a_contract = sum(fee_of(each) for each in [envelopes.setup(terms), *claims, end, *top_ups(terms)])
    next_starts_after = terms.window(INSTALMENTS - 1)[0] + terms.window_seconds // 2 - terms.start
    contracts = HOSTS * -(-YEAR_SECONDS // next_starts_after)
    assert contracts == 280
    assert 300 + 400 + 200 < a_contract < 3000
    assert contracts * a_contract < XLM // 10


def top_ups(terms: Terms) -> list[Envelope]:
    """All that one contract needs when a host gets its share of the TiB a GiB at a time, on the first day."""
    balance, amounts = terms.deposit_stroops, (0,) * terms.instalments
    found = []
    for _ in range(BYTES_EACH // COVER_BYTES):
        amounts = amounts_with(amounts, increments(terms, COVER_BYTES, terms.start, 0))
        added = paymaster.top_up(sum(amounts), balance, terms)
        balance += added
        if added:
            payment = envelopes.payment(
                terms.network, terms.owner, terms.escrow, stroops=added, sequence_number=5, last_second=terms.end
            )
            found.append(payment)
    assert balance >= sum(amounts)
    assert found
    return found


def fee_of(envelope: Envelope) -> int:
    return TransactionEnvelope.from_xdr(envelope.xdr({}), LEDGER_NAME).transaction.fee


@pytest.mark.parametrize("by_consent", [False, True])
def test_an_escrow_locks_two_lumens_whatever_it_pays_and_gives_them_back(by_consent: bool) -> None:
    scene = Scene(instalments=INSTALMENTS, deposit_stroops=4 * XLM)
    before = scene.balance("owner")
    assert scene.run(envelopes.setup(scene.terms), "owner", "escrow")
    assert scene.balance("escrow") == escrow_needs([XLM] * INSTALMENTS)
    for at in range(INSTALMENTS):
        scene.until(scene.terms.window(at)[0])
        claim = envelopes.claim(scene.terms, at, lock_of(at, XLM))
        assert scene.run(claim, "escrow", "host", answer=answer_to(at))
    account = as_read(scene.ledger.account(scene.terms.escrow))
    assert account is not None
    assert account.reserve_stroops(5_000_000) == locked_stroops() == 2 * XLM
    assert account.balance_stroops == 2 * XLM + 100
    while scene.ledger.state.header.sequence <= scene.terms.last_setup_ledger:
        scene.close()
    if by_consent:
        assert scene.ledger.state.header.closed_at < scene.terms.window(INSTALMENTS - 1)[0] + 100
        end = envelopes.settle(
            scene.terms, host_stroops=0, sequence_number=account.sequence + 1, last_second=scene.terms.end - 1
        )
        assert scene.run(end, "escrow", "host")
    else:
        scene.until(scene.terms.end)
        assert scene.run(envelopes.refund(scene.terms))
    assert scene.balance("escrow") == 0
    assert before - scene.balance("owner") == 4 * XLM + 300 + 400 + 100
