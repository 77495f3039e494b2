"""The transactions of `payments.md` on the development ledger: one contract from its set-up to its end."""

from __future__ import annotations

import hashlib

import pytest
from stellar_sdk import Account as Sender
from stellar_sdk import Asset, LedgerBounds, SignerKey, TransactionBuilder, TransactionEnvelope
from stellar_sdk import Signer as Extra

from layrfs.payments.devledger.state import TOTAL_STROOPS
from tests.ledgers import PASSPHRASE, Bank, Signer, person, signed

XLM = Asset.native()
STEP = 1 << 16
WINDOW = 1000
INSTALMENTS = 4
ANSWERS = [hashlib.sha256(bytes([number])).digest() for number in range(INSTALMENTS)]


class Contract:
    """Owner, host and escrow, and what they sign, as in payments.md."""

    def __init__(self) -> None:
        self.bank = Bank()
        self.owner, self.host, self.escrow = self.bank.person(1), self.bank.person(2), person(3)
        self.start = self.bank.now + 100
        self.last_setup = self.bank.ledger.state.header.sequence + 12
        self.base = self.last_setup << 32

    def of_escrow(self, number: int) -> TransactionBuilder:
        sender = Sender(self.escrow.public_key, self.base + (number + 1) * STEP - 1)
        return TransactionBuilder(sender, PASSPHRASE, base_fee=100).set_min_sequence_number(0)

    def claim(self, number: int, *signers: Signer) -> TransactionEnvelope:
        opens = self.start + number * WINDOW
        lock = SignerKey.sha256_hash(hashlib.sha256(ANSWERS[number]).digest())
        builder = self.of_escrow(number).add_time_bounds(opens, opens + WINDOW - 1).add_extra_signer(lock)
        return signed(builder.append_payment_op(self.host.public_key, XLM, "10"), *signers)

    def due(self, number: int) -> str:
        return self.claim(number, self.escrow, self.host, ANSWERS[number]).to_xdr()

    def refund(self) -> TransactionEnvelope:
        builder = self.of_escrow(INSTALMENTS).add_time_bounds(self.start + INSTALMENTS * WINDOW, 0)
        builder.ledger_bounds = LedgerBounds(self.last_setup + 1, 0)
        return signed(builder.append_account_merge_op(self.owner.public_key))

    def set_up(self) -> str:
        builder = self.bank.build(self.owner).add_time_bounds(0, self.bank.now + 60)
        builder.set_ledger_bounds(0, self.last_setup + 1)
        builder.append_create_account_op(self.escrow.public_key, "42.00005")
        friend, end = Extra.ed25519_public_key(self.host.public_key, 1), Extra.pre_auth_tx(self.refund().hash(), 2)
        builder.append_set_options_op(
            signer=friend, master_weight=1, low_threshold=2, med_threshold=2, high_threshold=2,
            source=self.escrow.public_key,
        )  # fmt: skip
        builder.append_set_options_op(signer=end, source=self.escrow.public_key)
        return signed(builder, self.owner, self.escrow).to_xdr()

    def code(self, envelope: str, *, seconds: int = 5) -> str:
        outcome = self.bank.run(envelope, seconds=seconds)
        assert self.bank.ledger.state.total_stroops() == TOTAL_STROOPS
        return outcome.code

    def move_to(self, seconds: int) -> None:
        """The clock, and ledgers enough for the number of the last set-up to be past."""
        while self.bank.ledger.state.header.sequence <= self.last_setup:
            self.bank.close(seconds=1)
        self.bank.close(seconds=self.start + seconds - self.bank.now)


@pytest.fixture
def contract() -> Contract:
    made = Contract()
    assert made.code(made.set_up()) == "tx_success"
    return made


def test_it_is_as_hosts_require_it(contract: Contract) -> None:
    escrow = contract.bank.account(contract.escrow)
    assert (escrow.low, escrow.medium, escrow.high, escrow.master_weight) == (2, 2, 2, 1)
    assert {(each.key.kind, each.weight) for each in escrow.signers} == {("ed25519_public_key", 1), ("preauth_tx", 2)}
    assert escrow.sequence < contract.base + STEP


def test_claims_one_missed_and_what_is_left_comes_back(contract: Contract) -> None:
    earned = contract.bank.account(contract.host).balance_stroops
    for number in (0, 2, 3):
        contract.move_to(number * WINDOW)
        assert contract.code(contract.due(number)) == "tx_success"
    assert contract.bank.account(contract.host).balance_stroops - earned == 30_0000000
    contract.move_to(INSTALMENTS * WINDOW)
    had = contract.bank.account(contract.owner).balance_stroops
    assert contract.code(contract.refund().to_xdr()) == "tx_success"
    assert contract.bank.account(contract.owner).balance_stroops - had == 12_0000000 + 500 - 4 * 100
    assert contract.bank.ledger.account(contract.escrow.raw_public_key()) is None


def test_what_is_not_due_is_refused_and_what_was_paid_is_not_paid_twice(contract: Contract) -> None:
    assert contract.code(contract.due(0)) == "tx_too_early"
    contract.move_to(0)
    owner, host, escrow = contract.owner, contract.host, contract.escrow
    for signers in (
        (escrow, ANSWERS[0]),
        (host, ANSWERS[0]),
        (escrow, host),
        (escrow, owner, host),
        (escrow, host, ANSWERS[1]),
    ):
        assert contract.code(contract.claim(0, *signers).to_xdr()) == "tx_bad_auth"
    assert contract.code(contract.claim(0, escrow, host, ANSWERS[0], owner).to_xdr()) == "tx_bad_auth_extra"
    assert contract.code(contract.refund().to_xdr()) == "tx_too_early"
    assert contract.code(contract.due(1)) == "tx_too_early"
    assert contract.code(contract.due(0)) == "tx_success"
    earned = contract.bank.account(host).balance_stroops
    assert contract.code(contract.due(0)) == "tx_success", "the same answer as before"
    assert contract.bank.account(host).balance_stroops == earned
    contract.move_to(2 * WINDOW)
    assert contract.code(contract.due(1)) == "tx_too_late"


def test_neither_party_alone_moves_anything(contract: Contract) -> None:
    contract.move_to(0)
    for party in (contract.escrow, contract.host):
        for take in ("append_payment_op", "append_account_merge_op", "append_bump_sequence_op"):
            builder = contract.bank.build(contract.escrow)
            arguments = {
                "append_payment_op": (contract.host.public_key, XLM, "1"),
                "append_account_merge_op": (contract.owner.public_key,),
                "append_bump_sequence_op": (1 << 60,),
            }[take]
            assert contract.code(signed(getattr(builder, take)(*arguments), party).to_xdr()) == "tx_bad_auth"


def test_both_together_may_end_it_early(contract: Contract) -> None:
    contract.move_to(0)
    ending = contract.bank.build(contract.escrow).append_account_merge_op(contract.owner.public_key)
    assert contract.code(signed(ending, contract.escrow, contract.host).to_xdr()) == "tx_success"


def test_the_set_up_comes_in_time_or_never() -> None:
    late = Contract()
    envelope = late.set_up()
    while late.bank.ledger.state.header.sequence < late.last_setup:
        late.bank.close(seconds=1)
    assert late.code(envelope) == "tx_too_late"
