"""The development ledger: what waits for the next ledger, what is in the books, and the closing of ledgers. Blocking.

Owns the order of things: admitted, then written to the books, then seen by anybody. Must not know HTTP, clocks or
loops. Invariants: at most one transaction of an account waits; what `close` has returned is in the books for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec

from layrfs.payments.devledger.books import Books, Closing, Entry, token_of
from layrfs.payments.devledger.rules import Closed, Outcome, close, refusal
from layrfs.payments.devledger.state import Account, Header, State, network_id
from layrfs.payments.devledger.transactions import (
    AccountMerge,
    CreateAccount,
    FeeBump,
    Operation,
    Payment,
    Submission,
    submission_untrusted,
)

FORWARD_SECONDS = 10
"""A transaction has to be valid for so long after the last ledger, or the next one might come too late for it: two
ledgers of Stellar's five seconds."""

IDLE_LEDGERS = 8
"""Of those in which nothing happens one in so many is written down: one a second would wear out disks."""


class Waiting(msgspec.Struct, frozen=True):
    """Admitted: the next ledger decides."""

    hash: bytes


class Rejected(msgspec.Struct, frozen=True):
    """Not admitted, or not any more when the ledger closed; nothing was charged."""

    hash: bytes
    outcome: Outcome


class Busy(msgspec.Struct, frozen=True):
    """Another transaction of the same account waits already; worth another try after the next ledger."""

    hash: bytes


Answer = Waiting | Rejected | Busy | Entry


def resumed(state: State) -> State:
    """A ledger from the books, after those that may have been forgotten: numbers of ledgers never come twice."""
    sequence = state.header.sequence | (IDLE_LEDGERS - 1)
    return msgspec.structs.replace(state, header=msgspec.structs.replace(state.header, sequence=sequence))


class DevelopmentLedger:
    """A ledger that goes on from `state`: of the books that have it, or of new ones (in memory, if there are none)."""

    def __init__(self, state: State, books: Books | None = None, forward_seconds: int = FORWARD_SECONDS) -> None:
        self._forward_seconds = forward_seconds
        self._books = Books() if books is None else books
        self._books.begin(state)
        self._passphrase = state.passphrase
        self._network_id = network_id(state.passphrase)
        self._header = state.header
        self._accounts = dict(state.accounts)
        self._waiting: dict[bytes, tuple[Submission, str]] = {}

    @property
    def state(self) -> State:
        """As of the last closed ledger; a copy."""
        return State(self._passphrase, self._header, dict(self._accounts))

    @property
    def passphrase(self) -> str:
        """The network's."""
        return self._passphrase

    @property
    def header(self) -> Header:
        """The last closed ledger."""
        return self._header

    @property
    def books(self) -> Books:
        """The history."""
        return self._books

    def account(self, key: bytes) -> Account | None:
        """As of the last closed ledger."""
        return self._accounts.get(key)

    def submit(self, envelope: str) -> Answer:
        """Base64 XDR. Again and again the same: what is in the books is answered from there. Raises BadMessage."""
        submission = submission_untrusted(envelope, self._network_id)
        known = self._books.entry(submission.hash)
        if known is not None:
            return known
        waits = self._waiting.get(submission.inner.source)
        if waits is not None:
            return Waiting(submission.hash) if waits[0].hash == submission.hash else Busy(submission.hash)
        latest = self._header.closed_at + self._forward_seconds
        outcome = refusal(submission, self._header, self._accounts, latest=latest)
        if outcome is not None:
            return Rejected(submission.hash, outcome)
        self._waiting[submission.inner.source] = (submission, envelope)
        return Waiting(submission.hash)

    def close(
        self,
        at_seconds: int,
        *,
        base_fee_stroops: int | None = None,
        base_reserve_stroops: int | None = None,
        is_idle: bool = False,
    ) -> list[Entry | Rejected]:
        """Close the next ledger: what became of everything that waited. Time does not run backwards here.

        A changed base fee or reserve holds from this ledger on. ``is_idle``: nobody minds if it is forgotten, as long
        as nothing is in it.
        """
        header = msgspec.structs.replace(
            self._header,
            base_fee_stroops=base_fee_stroops or self._header.base_fee_stroops,
            base_reserve_stroops=base_reserve_stroops or self._header.base_reserve_stroops,
        )
        at_seconds = max(at_seconds, header.closed_at)
        taken, rejected = self._sorted_out(header, at_seconds)
        header, draft, closed = close([each for each, _ in taken], header, self._accounts, at_seconds)
        envelopes = [envelope for _, envelope in taken]
        entries = [_entry(header, at, *each) for at, each in enumerate(zip(closed, envelopes, strict=True), 1)]
        if entries or not is_idle or header.sequence % IDLE_LEDGERS == 0:
            self._books.record(_closing(header, closed), draft.changes, entries)
        self._keep(header, draft.changes.items())
        return [*entries, *rejected]

    def _sorted_out(self, header: Header, at_seconds: int) -> tuple[list[tuple[Submission, str]], list[Rejected]]:
        """What goes in, in the order of hashes, which nobody chooses; and what has become impossible since."""
        taken, rejected = [], []
        for submission, envelope in sorted(self._waiting.values(), key=lambda each: each[0].hash):
            outcome = refusal(submission, header, self._accounts, latest=at_seconds)
            if outcome is None:
                taken.append((submission, envelope))
            else:
                rejected.append(Rejected(submission.hash, outcome))
        return taken, rejected

    def _keep(self, header: Header, changes: Iterable[tuple[bytes, Account | None]]) -> None:
        self._header = header
        self._waiting.clear()
        for key, account in changes:
            if account is None:
                self._accounts.pop(key, None)
            else:
                self._accounts[key] = account


def _closing(header: Header, closed: Sequence[Closed]) -> Closing:
    successful = sum(each.outcome.is_success for each in closed)
    operations = sum(len(each.submission.inner.operations) for each in closed if each.outcome.is_success)
    return Closing(header, successful, len(closed) - successful, operations)


def _entry(header: Header, position: int, closed: Closed, envelope: str) -> Entry:
    submission = closed.submission
    operations = tuple(participants(each) for each in submission.inner.operations)
    sources = (submission.fee_source, submission.inner.source)
    return Entry(
        token=token_of(header.sequence, position),
        hash=submission.hash,
        inner_hash=submission.inner.hash if isinstance(submission, FeeBump) else None,
        closed_at=header.closed_at,
        outcome=closed.outcome,
        fee_stroops=closed.fee_stroops,
        envelope=envelope,
        participants=(tuple(dict.fromkeys((*sources, *chain(*operations)))), *operations),
    )


def participants(operation: Operation) -> tuple[bytes, ...]:
    """The accounts that an operation is about."""
    match operation:
        case CreateAccount() | Payment() | AccountMerge():
            return tuple(dict.fromkeys((operation.source, operation.destination)))
    return (operation.source,)
