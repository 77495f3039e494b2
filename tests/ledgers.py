"""Development ledgers in this process, and people on them, for tests of rules."""

from __future__ import annotations

from stellar_sdk import Account as Sender
from stellar_sdk import FeeBumpTransactionEnvelope, Keypair, TransactionBuilder, TransactionEnvelope

from layrfs.payments.devledger.books import Books, Entry
from layrfs.payments.devledger.friendbot import root_keypair
from layrfs.payments.devledger.ledger import DevelopmentLedger, Rejected, Waiting
from layrfs.payments.devledger.rules import Outcome
from layrfs.payments.devledger.state import DEVELOPMENT_PREFIX, Account, genesis

PASSPHRASE = DEVELOPMENT_PREFIX + "tests"
START = 1_800_000_000

Signer = Keypair | bytes
"""A key, or the preimage of a hash."""


def person(number: int) -> Keypair:
    """The same one for each number."""
    return Keypair.from_raw_ed25519_seed(number.to_bytes(32, "big"))


class Bank:
    """A ledger in memory, its clock, and short words for what tests do with it."""

    def __init__(self, books: Books | None = None) -> None:
        self.root = root_keypair(PASSPHRASE)
        self.now = START
        self.ledger = DevelopmentLedger(genesis(PASSPHRASE, self.root.raw_public_key(), START), books)

    def person(self, number: int, lumens: int = 1000) -> Keypair:
        """Somebody with an account that has so much."""
        keypair = person(number)
        made = self.build(self.root).append_create_account_op(keypair.public_key, str(lumens))
        assert self.run(sign(made, self.root)).is_success
        return keypair

    def account(self, whose: Keypair | bytes) -> Account:
        """As of the last ledger."""
        key = whose if isinstance(whose, bytes) else whose.raw_public_key()
        found = self.ledger.account(key)
        assert found is not None
        return found

    def build(self, source: Keypair, *, sequence: int | None = None, fee: int = 100) -> TransactionBuilder:
        """A transaction of somebody's, with his next number, or the one given."""
        number = self.account(source).sequence if sequence is None else sequence - 1
        return TransactionBuilder(Sender(source.public_key, number), PASSPHRASE, base_fee=fee)

    def run(self, envelope: str, *, seconds: int = 5) -> Outcome:
        """Submit, close the next ledger so many seconds later, and say what came of it."""
        answer = self.ledger.submit(envelope)
        if isinstance(answer, Entry | Rejected):
            return answer.outcome
        assert isinstance(answer, Waiting)
        return next(each.outcome for each in self.close(seconds) if each.hash == answer.hash)

    def close(self, seconds: int = 5) -> list[Entry | Rejected]:
        """The next ledger."""
        self.now += seconds
        return self.ledger.close(self.now)


def sign(builder: TransactionBuilder, *signers: Signer) -> str:
    """Base64 XDR."""
    return signed(builder, *signers).to_xdr()


def signed(builder: TransactionBuilder, *signers: Signer) -> TransactionEnvelope:
    """The envelope."""
    if builder.time_bounds is None:
        builder.add_time_bounds(0, 0)
    envelope = builder.build()
    for each in signers:
        if isinstance(each, bytes):
            envelope.sign_hashx(each)
        else:
            envelope.sign(each)
    return envelope


def bump(
    inner: TransactionEnvelope, payer: Keypair, *signers: Keypair, base_fee: int = 200
) -> FeeBumpTransactionEnvelope:
    """Somebody else pays, at so many stroops for each operation and one more."""
    outer = TransactionBuilder.build_fee_bump_transaction(payer, base_fee, inner, PASSPHRASE)
    for each in signers or (payer,):
        outer.sign(each)
    return outer
