"""What else can happen to a contract on the ledger: accounts go, reserves rise, collateral, an early end."""

from __future__ import annotations

import pytest
from stellar_sdk import AccountMerge, Preconditions, StrKey, Transaction

from layrfs.payments import envelopes
from layrfs.payments.devledger.ledger import Rejected
from layrfs.payments.envelopes import Envelope
from layrfs.payments.escrow import escrow_faults
from layrfs.payments.fees import with_higher_fee
from layrfs.policy.pricing import collateral_shares, escrow_needs, starting_stroops
from tests.contract_ledger import KEYS, PRIVATE, Scene, answer_to, as_read, claim_of, signed
from tests.contract_terms import LEDGER_NAME

XLM = 10**7
DEPOSIT = 4 * XLM


@pytest.fixture
def scene() -> Scene:
    """In the first window, past the last ledger for the setup."""
    return opened(Scene(instalments=4, deposit_stroops=DEPOSIT))


def opened(scene: Scene, *signers: str) -> Scene:
    assert scene.run(envelopes.setup(scene.terms), "owner", "escrow", *signers)
    while scene.ledger.state.header.sequence <= scene.terms.last_setup_ledger:
        scene.close()
    return scene


def claimed(scene: Scene, instalment: int, stroops: int = XLM) -> bool:
    claim = claim_of(scene.terms, instalment, stroops)
    return scene.run(claim, "escrow", "host", answer=answer_to(instalment))


def goes_away(scene: Scene, name: str) -> None:
    """Somebody deletes the account, with all that is in it."""
    leaving, heir = (StrKey.encode_ed25519_public_key(KEYS[each]) for each in (name, "mallory"))
    body = Transaction(leaving, scene.account(name).sequence + 1, 100, [AccountMerge(heir)], None, Preconditions())
    assert scene.run(Envelope(scene.terms.network, body.to_xdr_object().to_xdr_bytes()), name)


def settlement(scene: Scene, stroops: int) -> Envelope:
    now = scene.ledger.state.header.closed_at
    sequence = scene.account("escrow").sequence + 1
    return envelopes.settle(scene.terms, host_stroops=stroops, sequence_number=sequence, last_second=now + 60)


def code_of(scene: Scene, envelope: Envelope, *signers: str, answer: bytes | None = None) -> str:
    """Why it is not even taken."""
    found = scene.ledger.submit(signed(envelope, *signers, answer=answer))
    assert isinstance(found, Rejected)
    return found.outcome.code


def test_an_escrow_that_was_set_up_as_agreed_has_no_fault(scene: Scene) -> None:
    account = as_read(scene.ledger.account(KEYS["escrow"]))
    assert escrow_faults(scene.terms, account, starting_stroops(scene.terms)) == ()
    assert claimed(scene, 0)
    account = as_read(scene.ledger.account(KEYS["escrow"]))
    assert escrow_faults(scene.terms, account, escrow_needs([XLM] * 3), passed=1) == ()
    assert escrow_faults(scene.terms, account, escrow_needs([XLM] * 3), passed=0) != ()


def test_a_setup_is_in_by_its_ledger_and_second_or_never() -> None:
    late = Scene(instalments=4, deposit_stroops=DEPOSIT)
    late.until(late.terms.start + 61)
    assert code_of(late, envelopes.setup(late.terms), "owner", "escrow") == "tx_too_late"
    far = Scene(instalments=4, deposit_stroops=DEPOSIT)
    while far.ledger.state.header.sequence < far.terms.last_setup_ledger:
        far.close(0)
    assert code_of(far, envelopes.setup(far.terms), "owner", "escrow") == "tx_too_late"


def test_a_claim_for_a_host_without_an_account_is_burnt_and_comes_back(scene: Scene) -> None:
    goes_away(scene, "host")
    before = scene.balance("owner")
    assert not claimed(scene, 0)
    assert scene.balance("escrow") == escrow_needs([XLM] * 4) - 100
    scene.until(scene.terms.end)
    assert scene.run(envelopes.refund(scene.terms))
    assert scene.balance("owner") == before + escrow_needs([XLM] * 4) - 200


def test_a_refund_to_an_owner_without_an_account_takes_both_from_then_on(scene: Scene) -> None:
    scene.until(scene.terms.end)
    goes_away(scene, "owner")
    assert not scene.run(envelopes.refund(scene.terms))
    assert [each.key.key for each in scene.account("escrow").signers] == [KEYS["host"]]
    assert scene.balance("escrow") == escrow_needs([XLM] * 4) - 100


def test_a_raised_reserve_burns_nothing_and_a_top_up_cures_it(scene: Scene) -> None:
    for at in range(3):
        scene.until(scene.terms.window(at)[0])
        assert claimed(scene, at)
    scene.until(scene.terms.window(3)[0])
    now = scene.ledger.state.header.closed_at
    scene.ledger.close(now + 5, base_reserve_stroops=10_000_000)
    claim = claim_of(scene.terms, 3, XLM)
    assert code_of(scene, claim, "escrow", "host", answer=answer_to(3)) == "tx_insufficient_balance"
    sequence = scene.account("owner").sequence + 1
    top_up = envelopes.payment(
        scene.terms.network,
        scene.terms.owner,
        scene.terms.escrow,
        stroops=escrow_needs([XLM], 10_000_000) - scene.balance("escrow"),
        sequence_number=sequence,
        last_second=now + 60,
    )
    assert scene.run(top_up, "owner")
    assert scene.run(claim, "escrow", "host", answer=answer_to(3))
    scene.until(scene.terms.end)
    assert scene.run(envelopes.refund(scene.terms))


def test_both_may_end_it_early(scene: Scene) -> None:
    assert claimed(scene, 0)
    end = settlement(scene, XLM // 2)
    for one in ("escrow", "host", "owner"):
        assert code_of(scene, end, one).startswith("tx_bad_auth")
    owner, host, all_ = scene.balance("owner"), scene.balance("host"), scene.balance("escrow")
    assert scene.run(end, "escrow", "host")
    assert scene.balance("host") == host + XLM // 2
    assert scene.balance("owner") == owner + all_ - XLM // 2 - 200
    assert scene.ledger.account(KEYS["escrow"]) is None


def test_an_early_end_that_fails_leaves_claims_and_refund_as_they_were(scene: Scene) -> None:
    assert claimed(scene, 0)
    assert not scene.run(settlement(scene, DEPOSIT), "escrow", "host")
    scene.until(scene.terms.window(1)[0])
    assert claimed(scene, 1)
    scene.until(scene.terms.end)
    assert scene.run(envelopes.refund(scene.terms))


def test_collateral_takes_the_hosts_signature_and_comes_back_with_what_is_claimed() -> None:
    scene = Scene(instalments=4, deposit_stroops=DEPOSIT, collateral_stroops=XLM + 3)
    assert code_of(scene, envelopes.setup(scene.terms), "owner", "escrow") == "tx_failed"
    before = scene.balance("owner"), scene.balance("host")
    opened(scene, "host")
    assert scene.balance("escrow") == starting_stroops(scene.terms) + XLM + 3
    shares = collateral_shares(scene.terms)
    for at in (0, 3):
        scene.until(scene.terms.window(at)[0])
        assert claimed(scene, at, XLM + shares[at])
    scene.until(scene.terms.end)
    assert scene.run(envelopes.refund(scene.terms))
    forfeited = shares[1] + shares[2]
    assert scene.balance("host") == before[1] + 2 * XLM - forfeited
    assert scene.balance("owner") == before[0] - 2 * XLM + forfeited - 400 - 300


def test_a_fee_bump_by_anybody_claims_just_the_same(scene: Scene) -> None:
    claim = claim_of(scene.terms, 0, XLM)
    inner = signed(claim, "escrow", "host", answer=answer_to(0))
    before = scene.balance("host"), scene.balance("escrow")
    scene.ledger.submit(with_higher_fee(inner, PRIVATE["mallory"], 500, LEDGER_NAME))
    scene.close()
    entry = scene.ledger.books.entry(claim.hash)
    assert entry is not None
    assert entry.outcome.is_success
    assert (scene.balance("host"), scene.balance("escrow")) == (before[0] + XLM, before[1] - XLM)
