"""One contract on a development ledger in this process: its parties, its keys and answers, and a clock that we turn."""

from __future__ import annotations

import copy
import hashlib

import msgspec

from layrfs.crypto.wallet_keys import account_of
from layrfs.model.contracts import Lock, Terms
from layrfs.model.ledger import LedgerAccount, LedgerSigner, SignerKind
from layrfs.payments import envelopes
from layrfs.payments.devledger import friendbot
from layrfs.payments.devledger.books import Entry
from layrfs.payments.devledger.ledger import DevelopmentLedger
from layrfs.payments.devledger.state import Account, genesis
from layrfs.payments.envelopes import Envelope
from layrfs.policy.agreeing import SETUP_LEDGERS
from tests.contract_terms import LEDGER_NAME, TERMS

WINDOW_SECONDS = 600
NAMES = ("owner", "host", "escrow", "mallory")
PRIVATE = {name: hashlib.sha256(name.encode()).digest() for name in NAMES}
KEYS = {name: account_of(private) for name, private in PRIVATE.items()}

_KINDS: dict[str, SignerKind] = {"ed25519_public_key": "key", "preauth_tx": "preauth", "sha256_hash": "hash"}


class Scene:
    """A ledger on which owner, host and a third one have accounts, and terms that nobody has acted on yet."""

    def __init__(self, **changes: object) -> None:
        root = friendbot.root_keypair(LEDGER_NAME)
        self.ledger = DevelopmentLedger(genesis(LEDGER_NAME, root.raw_public_key(), TERMS.start - 100))
        people = [KEYS[name] for name in NAMES if name != "escrow"]
        self.ledger.submit(friendbot.gifts(LEDGER_NAME, 0, people))
        self.close()
        header = self.ledger.state.header
        agreed = {
            "owner": KEYS["owner"],
            "host": KEYS["host"],
            "escrow": KEYS["escrow"],
            "start": header.closed_at,
            "window_seconds": WINDOW_SECONDS,
            "last_setup_ledger": header.sequence + SETUP_LEDGERS,
            "owner_sequence": self.account("owner").sequence + 1,
        }
        self.terms: Terms = msgspec.structs.replace(TERMS, **{**agreed, **changes})
        self.escrow_private = PRIVATE["escrow"]

    def renewed(self) -> Scene:
        """The same ledger, with the terms of another contract from now on."""
        again, header = copy.copy(self), self.ledger.state.header
        again.escrow_private = hashlib.sha256(self.escrow_private).digest()
        again.terms = msgspec.structs.replace(
            self.terms,
            number=self.terms.number + 1,
            escrow=account_of(again.escrow_private),
            start=header.closed_at,
            last_setup_ledger=header.sequence + SETUP_LEDGERS,
            owner_sequence=self.account("owner").sequence + 1,
        )
        return again

    def account(self, name: str) -> Account:
        """As of the last ledger."""
        found = self.ledger.account(KEYS[name])
        assert found is not None
        return found

    def balance(self, name: str) -> int:
        """In stroops; 0 without an account."""
        found = self.ledger.account(self.terms.escrow if name == "escrow" else KEYS[name])
        return found.balance_stroops if found else 0

    def close(self, seconds: int = 5) -> list[Entry]:
        """The next ledger, so much later: what is in it."""
        closed = self.ledger.close(self.ledger.state.header.closed_at + seconds)
        return [each for each in closed if isinstance(each, Entry)]

    def run(self, envelope: Envelope, *signers: str, answer: bytes | None = None) -> bool:
        """Submit it, close the next ledger, and say whether it took effect there."""
        self.ledger.submit(signed(envelope, *signers, answer=answer))
        return any(each.hash == envelope.hash and each.outcome.is_success for each in self.close())

    def until(self, seconds: int) -> None:
        """Close a ledger at this time, unless it is past."""
        self.close(max(0, seconds - self.ledger.state.header.closed_at))


def signed(envelope: Envelope, *signers: str, answer: bytes | None = None) -> str:
    """Base64 XDR, with these signatures."""
    signatures = {KEYS[name]: envelope.sign(PRIVATE[name]) for name in signers}
    return envelope.xdr(signatures, [answer] if answer else [])


def answer_to(instalment: int, version: int = 0) -> bytes:
    """An answer, of no pieces in particular."""
    return hashlib.sha256(f"answer {instalment} {version}".encode()).digest()


def lock_of(instalment: int, stroops: int, version: int = 0) -> Lock:
    """The lock that it opens."""
    return Lock(stroops, hashlib.sha256(answer_to(instalment, version)).digest())


def claim_of(terms: Terms, instalment: int, stroops: int, version: int = 0) -> Envelope:
    """The instalment's payment, behind that lock."""
    return envelopes.claim(terms, instalment, lock_of(instalment, stroops, version))


def as_read(account: Account | None) -> LedgerAccount | None:
    """An account as a client of this ledger reads it."""
    if account is None:
        return None
    signers = tuple(LedgerSigner(_KINDS[each.key.kind], each.key.key, each.weight) for each in account.all_signers())
    thresholds = (account.low, account.medium, account.high)
    return LedgerAccount(
        account.key,
        account.sequence,
        account.balance_stroops,
        thresholds,
        signers,
        subentries=len(account.signers),
        flags=account.flags,
    )
