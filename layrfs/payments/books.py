"""The books of a wallet: every transaction of its account and its escrows explained, stroop by stroop. Pure.

Owns the comparison of what a ledger says with what is on record. Must not know how either is read, nor mend anything.
Invariant: what came in is what went out, fees, and what is there. A stroop for which that does not hold is a
difference, and so is whatever ledger and records say of a contract that cannot both be so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from layrfs.model.contracts import Terms
from layrfs.model.ledger import LedgerTransaction
from layrfs.model.lumens import shown_lumens
from layrfs.payments.endings import is_end
from layrfs.payments.envelopes import SEQUENCE_STEP, claim, network_id, refund, sequence, setup
from layrfs.payments.reading import Movement, Submission, movements_untrusted, submission_untrusted
from layrfs.payments.verdicts import sentence
from layrfs.policy.bookkeeping import Recorded, record_faults
from layrfs.policy.contracts import OwnerState
from layrfs.policy.paymaster import Contract, Instalment, amounts, host_due, lock
from layrfs.policy.pricing import BASE_RESERVE_STROOPS, escrow_needs

_SET_UP_STATES: frozenset[OwnerState] = frozenset({"open", "settling", "broken", "ended"})


_ENDING_STATES: frozenset[OwnerState] = frozenset({"settling", "broken", "ended", "merged"})
"""Where an end by consent may have come from: the wish is on record first."""


class Account(Struct, frozen=True):
    """One account as a ledger has it at one moment: all its transactions, and what is in it (0: it is not there)."""

    key: bytes
    balance_stroops: int = 0
    exists: bool = False
    transactions: tuple[LedgerTransaction, ...] = ()


class Ledgers(Struct, frozen=True):
    """What was read: the wallet's account, and the escrows of all contracts by their keys."""

    passphrase: str
    wallet: Account
    escrows: Mapping[bytes, Account]
    base_reserve_stroops: int = BASE_RESERVE_STROOPS


class Owner(Struct, frozen=True):
    """What only the owner can say. ``salt``: of a contract's instalment; ``terms``: of a set-up, if it is one."""

    salt: Callable[[Terms, int], bytes]
    terms: Callable[[LedgerTransaction], Terms | None]


class Line(Struct, frozen=True):
    """One transaction. What it moved into the wallet and the escrows (out: negative), and the fee one of them paid."""

    at: int
    ledger: int
    hash: bytes
    what: str
    contract: str
    wallet_stroops: int
    escrow_stroops: int
    fee_stroops: int


class Sums(Struct, frozen=True):
    """In stroops. ``came``: from elsewhere into wallet and escrows; ``wallet`` and ``escrows`` have the rest."""

    came: int = 0
    to_hosts: int = 0
    sent: int = 0
    fees: int = 0
    wallet: int = 0
    escrows: int = 0

    @property
    def unexplained(self) -> int:
        """0, or the books do not balance."""
        return self.came - self.to_hosts - self.sent - self.fees - self.wallet - self.escrows


class Books(Struct, frozen=True):
    """``differences``: what cannot be so. ``notes``: what is not on record yet, and will be when the drive looks."""

    lines: tuple[Line, ...]
    sums: Sums
    differences: tuple[str, ...]
    notes: tuple[str, ...]


def reconcile(ledgers: Ledgers, records: Sequence[Recorded], owner: Owner) -> Books:
    """Explain everything."""
    return _Reconciliation(ledgers, records, owner).books()


def unrecorded(wallet: Account, records: Sequence[Recorded], owner: Owner) -> list[Terms]:
    """Contracts that the ledger has and the records have not."""
    known = {each.contract.terms.escrow for each in records}
    found = (owner.terms(each) for each in wallet.transactions)
    return [terms for terms in found if terms is not None and terms.escrow not in known]


class _Reconciliation:
    """One comparison; it ends with ``books``."""

    def __init__(self, ledgers: Ledgers, records: Sequence[Recorded], owner: Owner) -> None:
        here = network_id(ledgers.passphrase)
        self._ledgers, self._owner = ledgers, owner
        self._recorded = {each.contract.terms.escrow: each for each in records if each.contract.terms.network == here}
        self._elsewhere = [each for each in records if each.contract.terms.network != here]
        found = {terms.escrow: _as_record(terms) for terms in unrecorded(ledgers.wallet, records, owner)}
        self._unrecorded = found
        self._known = self._recorded | found
        self._ours = {ledgers.wallet.key, *self._known}
        terms = [each.contract.terms for each in self._known.values()]
        self._set_ups = {setup(each).hash: each.escrow for each in terms}
        self._refunds = {refund(each).hash: each.escrow for each in terms}
        self._is_set_up: set[bytes] = set()
        self._claims: dict[bytes, dict[int, tuple[int, bytes]]] = defaultdict(dict)
        self._moved: dict[bytes, int] = defaultdict(int)
        self._came = self._to_hosts = self._sent = self._fees = 0
        self._differences: list[str] = []
        self._notes: list[str] = []

    def books(self) -> Books:
        lines = [self._line(each) for each in self._transactions()]
        for each in self._elsewhere:
            self._notes.append(f"{each.name} is on another ledger, and not looked at")
        for each in self._known.values():
            self._differences += record_faults(each)
            self._compare(each)
        for account in self._accounts():
            self._check_balance(account)
        sums = Sums(
            came=self._came,
            to_hosts=self._to_hosts,
            sent=self._sent,
            fees=self._fees,
            wallet=self._ledgers.wallet.balance_stroops,
            escrows=sum(each.balance_stroops for each in self._ledgers.escrows.values()),
        )
        if sums.unexplained:
            self._differences.append(f"{shown_lumens(sums.unexplained)} XLM came in that are nowhere")
        return Books(tuple(lines), sums, tuple(self._differences), tuple(self._notes))

    def _accounts(self) -> Iterator[Account]:
        yield self._ledgers.wallet
        yield from self._ledgers.escrows.values()

    def _transactions(self) -> list[LedgerTransaction]:
        """Each once, in the ledger's order as far as it matters."""
        found = {each.hash: each for account in self._accounts() for each in account.transactions}
        return sorted(found.values(), key=lambda each: each.ledger)

    # -------------------------------------------------------------------- lines

    def _line(self, transaction: LedgerTransaction) -> Line:
        passphrase, wallet = self._ledgers.passphrase, self._ledgers.wallet.key
        submission = submission_untrusted(transaction.envelope, passphrase)
        moved: tuple[Movement, ...] = ()
        if transaction.successful:
            moved = movements_untrusted(transaction.envelope, transaction.result_xdr, passphrase)
        fee = transaction.fee_charged_stroops if transaction.fee_account in self._ours else 0
        deltas = _deltas(moved)
        for key in self._ours & deltas.keys():
            self._moved[key] += deltas[key]
        if fee:
            self._moved[transaction.fee_account] -= fee
            self._fees += fee
        what, escrow = self._explained(transaction, submission, moved)
        self._count(moved)
        return Line(
            at=transaction.closed_at,
            ledger=transaction.ledger,
            hash=transaction.hash,
            what=what if transaction.successful else f"failed ({sentence(transaction.codes)}): {what}",
            contract=self._known[escrow].name if escrow is not None else "",
            wallet_stroops=deltas.get(wallet, 0),
            escrow_stroops=sum(deltas.get(key, 0) for key in self._known),
            fee_stroops=fee,
        )

    def _count(self, moved: Sequence[Movement]) -> None:
        for each in moved:
            is_from_us, is_to_us = each.source in self._ours, each.destination in self._ours
            if is_to_us and not is_from_us:
                self._came += each.stroops
            elif is_from_us and not is_to_us:
                host = self._known[each.source].contract.terms.host if each.source in self._known else None
                if each.destination == host:
                    self._to_hosts += each.stroops
                else:
                    self._sent += each.stroops

    def _explained(
        self, transaction: LedgerTransaction, submission: Submission, moved: Sequence[Movement]
    ) -> tuple[str, bytes | None]:
        """What it is, and the escrow that it has to do with."""
        hash_ = transaction.hash
        if (escrow := self._set_ups.get(hash_)) is not None:
            if transaction.successful:
                self._is_set_up.add(escrow)
            return "set-up", escrow
        if (escrow := self._refunds.get(hash_)) is not None:
            return "refund", escrow
        if submission.source in self._known:
            return self._explained_escrow(transaction, submission, moved), submission.source
        if robbed := [each.source for each in moved if each.source in self._known]:
            self._differ(robbed[0], f"transaction {_shown(hash_)} took money that nothing on record gives away")
            return "unknown", robbed[0]
        escrows = [each.destination for each in moved if each.destination in self._known]
        if submission.source == self._ledgers.wallet.key or any(
            each.source == self._ledgers.wallet.key for each in moved
        ):
            if escrows:
                return "top-up", escrows[0]
            return ("sent" if moved else "fee"), None
        if escrows:
            return "gift to an escrow", escrows[0]
        return ("received" if any(each.destination in self._ours for each in moved) else "fee"), None

    def _explained_escrow(
        self, transaction: LedgerTransaction, submission: Submission, moved: Sequence[Movement]
    ) -> str:
        contract = self._known[submission.source].contract
        terms, taken = contract.terms, [each for each in moved if each.source == submission.source]
        step, odd = divmod(submission.sequence - sequence(terms, 0), SEQUENCE_STEP)
        if not odd and 1 <= step <= terms.instalments:
            if not transaction.successful or self._is_claim(contract, step - 1, transaction.hash, taken):
                if taken:
                    self._claims[terms.escrow][step - 1] = taken[0].stroops, transaction.hash
                return f"instalment {step - 1}"
        elif not transaction.successful:
            return "unknown"
        elif is_end(terms, submission, moved):
            return self._explained_end(contract, submission, moved)
        self._differ(
            terms.escrow,
            f"transaction {_shown(transaction.hash)} took {shown_lumens(sum(each.stroops for each in taken))} XLM,"
            " and no cover on record allows it",
        )
        return "unknown"

    def _explained_end(self, contract: Contract, submission: Submission, moved: Sequence[Movement]) -> str:
        """It gives the host what the owner reckons it is due, of instalments that the ledger has not paid before."""
        terms, paid = contract.terms, self._claims[contract.terms.escrow]
        to_host = sum(each.stroops for each in moved if each.destination == terms.host)
        fewest = _settled_stroops(contract, paid, submission.latest)
        if contract.whole and (contract.state not in _ENDING_STATES or to_host != fewest):
            self._differ(
                terms.escrow,
                f"it ended by consent with {shown_lumens(to_host)} XLM for the host, and on record"
                f" {shown_lumens(fewest)} XLM were due",
            )
        return "end by consent"

    def _is_claim(self, contract: Contract, instalment: int, hash_: bytes, taken: Sequence[Movement]) -> bool:
        """Whether it is what the owner has signed, for covers on record (or what is in them is not known here)."""
        terms = contract.terms
        if len(taken) != 1 or taken[0].destination != terms.host:
            return False
        if not contract.whole:
            return True
        prefixes = (contract.batches[:count] for count in range(len(contract.batches), 0, -1))
        fitting = (
            batches
            for batches in prefixes
            if batches[-1].first <= instalment and amounts(terms, batches)[instalment] == taken[0].stroops
        )
        salt = self._owner.salt(terms, instalment)
        return any(claim(terms, instalment, lock(terms, each, instalment, salt)).hash == hash_ for each in fitting)

    # ---------------------------------------------------------------- contracts

    def _compare(self, recorded: Recorded) -> None:
        contract, escrow = recorded.contract, recorded.contract.terms.escrow
        account = self._ledgers.escrows.get(escrow) or Account(escrow)
        if escrow in self._unrecorded:
            self._note_unrecorded(escrow, account)
            return
        state, is_set_up = contract.state, escrow in self._is_set_up
        if state in _SET_UP_STATES and not is_set_up:
            self._differ(escrow, f"it is {state} on record, and the ledger has no set-up")
        if state == "void" and is_set_up:
            self._differ(escrow, "it was given up on record, and the ledger has its set-up")
        if state == "merged" and account.exists:
            self._differ(escrow, f"it is over on record, and {shown_lumens(account.balance_stroops)} XLM are in it")
        if state in {"agreed", "submitted"} and is_set_up:
            self._note(escrow, "it is set up, which is not on record yet")
        if state in _SET_UP_STATES and is_set_up and not account.exists:
            self._note(escrow, "its rest came back, which is not on record yet")
        for at, one in enumerate(contract.instalments):
            self._compare_instalment(recorded, at, one)
        self._check_promises(contract, account)

    def _note_unrecorded(self, escrow: bytes, account: Account) -> None:
        if account.exists:
            self._differ(escrow, f"it is not on record, and {shown_lumens(account.balance_stroops)} XLM are in it")
        else:
            self._note(escrow, "it is not on record, and over: another machine's, or one before records were lost")

    def _compare_instalment(self, recorded: Recorded, at: int, one: Instalment) -> None:
        escrow, payment = recorded.contract.terms.escrow, recorded.payments[at]
        found = self._claims[escrow].get(at)
        if one.state == "claimed" and found != (one.paid_stroops, payment):
            on_ledger = "nothing" if found is None else f"{shown_lumens(found[0])} XLM by {_shown(found[1])}"
            said = f"{shown_lumens(one.paid_stroops)} XLM by {_shown(payment or b'')}"
            self._differ(escrow, f"instalment {at} paid {said} on record, and {on_ledger} on the ledger")
        elif one.state == "missed" and found is not None and recorded.contract.whole:
            self._differ(escrow, f"instalment {at} was missed on record, and paid {shown_lumens(found[0])} XLM")
        elif one.state != "claimed" and found is not None:
            self._note(escrow, f"instalment {at} is paid, which is not on record yet")

    def _check_promises(self, contract: Contract, account: Account) -> None:
        """That an escrow has what hosts have been promised from it."""
        if contract.state != "open" or not account.exists:
            return
        paid = self._claims[contract.terms.escrow]
        due = [
            amount
            for at, (amount, one) in enumerate(
                zip(amounts(contract.terms, contract.batches), contract.instalments, strict=True)
            )
            if one.state in {"waiting", "disclosed"} and at not in paid and amount
        ]
        lacking = escrow_needs(due, self._ledgers.base_reserve_stroops) - account.balance_stroops
        if lacking > 0:
            self._differ(contract.terms.escrow, f"its escrow lacks {shown_lumens(lacking)} XLM of what is promised")

    def _check_balance(self, account: Account) -> None:
        moved = self._moved[account.key]
        if moved != account.balance_stroops:
            name = "the wallet" if account.key == self._ledgers.wallet.key else self._known[account.key].name
            self._differences.append(
                f"{name} has {shown_lumens(account.balance_stroops)} XLM, and its transactions add up to"
                f" {shown_lumens(moved)} XLM"
            )

    def _differ(self, escrow: bytes, what: str) -> None:
        self._differences.append(f"{self._known[escrow].name}: {what}")

    def _note(self, escrow: bytes, what: str) -> None:
        self._notes.append(f"{self._known[escrow].name}: {what}")


def _settled_stroops(contract: Contract, paid: Collection[int], latest: int) -> int:
    """What an end until then gives the host: of what is on record as missed, nothing."""
    states = [
        Instalment("claimed") if at in paid else one if one.state == "missed" else Instalment()
        for at, one in enumerate(contract.instalments)
    ]
    return host_due(msgspec.structs.replace(contract, instalments=tuple(states)), latest)


def _as_record(terms: Terms) -> Recorded:
    """Of a contract that is not on record: nothing is known of what it covers."""
    blank = (Instalment(),) * terms.instalments
    return Recorded(Contract(-1, terms, "open", (), blank, whole=False), (None,) * terms.instalments)


def _deltas(moved: Sequence[Movement]) -> dict[bytes, int]:
    found: dict[bytes, int] = defaultdict(int)
    for each in moved:
        found[each.source] -= each.stroops
        found[each.destination] += each.stroops
    return found


def _shown(hash_: bytes) -> str:
    return hash_.hex()[:12]
