"""A ledger in this process: the development ledger's rules behind the port that Horizon's client has, and its bad days.

Passes `tests/contracts/test_ledger.py` as Horizon's client does. A test may have it go away, lose answers, or not
close; its time is the test's.
"""

from __future__ import annotations

from itertools import islice

import msgspec
import trio

from layrfs.errors import LedgerUnavailable, Rejected, WrongLedger
from layrfs.model.ledger import Fate, HistoryPage, LedgerAccount, LedgerHead, LedgerTransaction
from layrfs.payments import horizon_answers as answers
from layrfs.payments.devledger import horizon as shown
from layrfs.payments.devledger.books import Entry, Page
from layrfs.payments.devledger.ledger import Busy
from layrfs.payments.devledger.ledger import Rejected as NotTaken
from layrfs.payments.devledger.state import network_id
from layrfs.payments.devledger.transactions import submission_untrusted
from layrfs.payments.reading import address_of
from layrfs.payments.verdicts import sentence
from tests.ledgers import Bank, sign

PAGE_TRANSACTIONS = 50


class InProcessLedger:
    """What `bank` has. Each submission closes a ledger of its own, five seconds after the last."""

    def __init__(self, bank: Bank | None = None) -> None:
        self.bank = bank or Bank()
        self.is_away = False
        """Nothing is answered."""
        self.is_another = False
        """It says that it is another network."""
        self.loses_answers = False
        """What is submitted gets in, and nobody is told."""
        self.loses_submissions = False
        """What is submitted is gone, and nobody is told."""
        self.passes_by_below_stroops = 0
        """What bids less for an operation is taken, and never gets into a ledger."""
        self.lag_seconds = 0
        """By so much its servers may be behind each other; with the next: the one that knows transactions is."""
        self.hides_transactions = False
        self.forgets_accounts = False
        """It says that there are none."""
        self.submitted: list[str] = []
        """All that was handed in, in order."""

    def fund(self, key: bytes) -> None:
        """Begin an account with 10,000 XLM."""
        made = self.bank.build(self.bank.root).append_create_account_op(address_of(key), "10000")
        assert self.bank.run(sign(made, self.bank.root)).is_success

    @property
    def passphrase(self) -> str:
        return self.bank.ledger.passphrase

    async def head(self) -> LedgerHead:
        await self._reach()
        return self._head()

    async def account(self, key: bytes) -> LedgerAccount | None:
        await self._reach()
        return self._account(key)

    async def transaction(self, hash_: bytes) -> LedgerTransaction | None:
        await self._reach()
        return self._transaction(hash_)

    async def fate(self, hash_: bytes, source: bytes) -> Fate:
        await self._reach()
        found = None if self.hides_transactions else self._transaction(hash_)
        return Fate(self._head(), self._account(source), found, self.lag_seconds)

    async def submit(self, xdr: str) -> LedgerTransaction:
        await self._reach()
        self.submitted.append(xdr)
        if self.loses_submissions or self._bid(xdr) < self.passes_by_below_stroops:
            self.bank.close()
            raise LedgerUnavailable("the ledger in this process lost a submission")
        answer = self.bank.ledger.submit(xdr)
        if isinstance(answer, Busy):
            raise LedgerUnavailable("the ledger in this process is busy")
        self.bank.close()
        if self.loses_answers:
            raise LedgerUnavailable("the ledger in this process lost an answer")
        if isinstance(answer, NotTaken):
            outcome = answer.outcome
            first = outcome.inner if outcome.inner is not None else outcome.code
            codes = (first, *(each.code for each in outcome.operations))
            raise Rejected(f"the ledger does not take the transaction: {sentence(codes)}", codes)
        done = self._transaction(self.hash_of(xdr))
        assert done is not None
        if not done.successful:
            raise Rejected(f"the transaction has failed: {sentence(done.codes)}", done.codes)
        return done

    async def history(self, key: bytes, cursor: str = "", *, newest_first: bool = False) -> HistoryPage:
        await self._reach()
        books = self.bank.ledger.books
        page = Page(int(cursor) if cursor else None, PAGE_TRANSACTIONS, newest_first)
        tokens = list(islice(books.tokens(key, page, of_operations=False), page.limit))
        entries = [entry for token in tokens if (entry := books.entry_at(token)) is not None]
        return HistoryPage(tuple(map(self._shown, entries)), str(tokens[-1]) if tokens else cursor)

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise LedgerUnavailable("the ledger in this process is away")
        if self.is_another:
            raise WrongLedger("the ledger in this process is another one")

    def _head(self) -> LedgerHead:
        header = self.bank.ledger.header
        return LedgerHead(header.sequence, header.closed_at, header.base_reserve_stroops, header.base_fee_stroops)

    def _account(self, key: bytes) -> LedgerAccount | None:
        account = self.bank.ledger.account(key)
        if account is None or self.forgets_accounts:
            return None
        found = msgspec.convert(shown.account_json(account, self.bank.ledger.header, "/"), answers.Account)
        return answers.account_untrusted(found, key)

    def _transaction(self, hash_: bytes) -> LedgerTransaction | None:
        entry = self.bank.ledger.books.entry(hash_)
        return None if entry is None else self._shown(entry)

    def _shown(self, entry: Entry) -> LedgerTransaction:
        submission = submission_untrusted(entry.envelope, network_id(self.passphrase))
        found = msgspec.convert(shown.transaction_json(entry, submission, "/"), answers.Transaction)
        return answers.transaction_untrusted(found, self.passphrase)

    def _bid(self, xdr: str) -> int:
        submission = submission_untrusted(xdr, network_id(self.passphrase))
        return submission.fee_stroops // len(submission.inner.operations)

    def hash_of(self, xdr: str) -> bytes:
        """What was signed."""
        return submission_untrusted(xdr, network_id(self.passphrase)).inner.hash
