"""Which transactions a ledger takes, and what it makes of them: the order of looks is Stellar's. Pure.

Owns admission (`refusal`) and the closing of a ledger (`close`), after stellar-core's `TransactionFrame` of protocol
19. Must not know where ledgers are kept, or who submits. Codes are Horizon's. Invariants: a closed ledger has as many
lumens as the one before; a pre-authorized signer is gone once its transaction was carried out, however that went.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from layrfs.payments.devledger.operations import SUCCESS, Done, carry_out, level, malformed, threshold
from layrfs.payments.devledger.signatures import Signatures
from layrfs.payments.devledger.state import Account, Accounts, Draft, Header, Signer, SignerKey
from layrfs.payments.devledger.transactions import FeeBump, Operation, Submission, Transaction

TX_SUCCESS, TX_FAILED = "tx_success", "tx_failed"
BUMP_SUCCESS, BUMP_FAILED = "tx_fee_bump_inner_success", "tx_fee_bump_inner_failed"
_MOST_SEQUENCE = (1 << 63) - 1


class Outcome(msgspec.Struct, frozen=True):
    """What became of a submission. A fee bump has the code of what it carries beside its own."""

    code: str
    operations: tuple[Done, ...] = ()
    inner: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether its operations took effect."""
        return self.code in {TX_SUCCESS, BUMP_SUCCESS}

    def bumped(self) -> Outcome:
        """The same for the fee bump around it."""
        return Outcome(BUMP_SUCCESS if self.is_success else BUMP_FAILED, self.operations, self.code)


class Closed(msgspec.Struct, frozen=True):
    """A submission in a closed ledger."""

    submission: Submission
    outcome: Outcome
    fee_stroops: int


class _Moment(NamedTuple):
    """The ledger that a transaction would be in, and between which times it may close."""

    header: Header
    latest: int
    applying: bool


class _Look(NamedTuple):
    """How far a transaction got: its first fault, whether it uses up its number, and whether that was authorized."""

    code: str
    has_number: bool = False
    is_authentic: bool = False


_GOOD = _Look(TX_SUCCESS, has_number=True, is_authentic=True)


def refusal(submission: Submission, header: Header, accounts: Accounts, *, latest: int) -> Outcome | None:
    """Why the next ledger does not take a submission; None when it does. `header` is the last's.

    `latest`: when the next one may close (Unix seconds).
    """
    coming = msgspec.structs.replace(header, sequence=header.sequence + 1)
    moment = _Moment(coming, latest, applying=False)
    if isinstance(submission, FeeBump):
        return _bump_refusal(submission, moment, accounts)
    return _refusal(submission, moment, accounts, charges=True)


def close(
    submissions: Sequence[Submission], header: Header, accounts: Accounts, at_seconds: int
) -> tuple[Header, Draft, list[Closed]]:
    """The next ledger, what it changes, and what came of each submission, none of which may be one to refuse.

    At most one submission for each source. Fees of all are taken before the first is carried out.
    """
    draft = Draft(accounts)
    header = msgspec.structs.replace(header, sequence=header.sequence + 1, closed_at=at_seconds)
    fees = [_take_fee(submission, header, draft) for submission in submissions]
    closed = [
        Closed(submission, _apply_any(submission, header, draft), fee)
        for submission, fee in zip(submissions, fees, strict=True)
    ]
    return msgspec.structs.replace(header, fee_pool_stroops=header.fee_pool_stroops + sum(fees)), draft, closed


def least_fee_stroops(submission: Submission, header: Header) -> int:
    """The fee that the ledger asks for; of a fee bump one operation more."""
    operations = len(submission.inner.operations) + isinstance(submission, FeeBump)
    return operations * header.base_fee_stroops


def _existing(draft: Draft, key: bytes) -> Account:
    """An account without which the transaction would have been refused before."""
    account = draft.get(key)
    if account is None:
        raise AssertionError("an account of an accepted transaction exists")
    return account


def _take_fee(submission: Submission, header: Header, draft: Draft) -> int:
    account = _existing(draft, submission.fee_source)
    fee = min(submission.fee_stroops, least_fee_stroops(submission, header), account.balance_stroops)
    draft.put(msgspec.structs.replace(account, balance_stroops=account.balance_stroops - fee))
    return fee


def _refusal(transaction: Transaction, moment: _Moment, accounts: Accounts, *, charges: bool) -> Outcome | None:
    signatures = Signatures(transaction.hash, transaction.signatures)
    look = _look(transaction, moment, accounts, signatures, charges=charges)
    if look.code != TX_SUCCESS:
        return Outcome(look.code)
    for index, operation in enumerate(transaction.operations):
        code = _unsigned(transaction, index, accounts, signatures) or malformed(operation)
        if code is not None:
            return Outcome(TX_FAILED, _only(index, code, transaction.operations))
    return None if signatures.are_all_used() else Outcome("tx_bad_auth_extra")


def _only(index: int, code: str, operations: Sequence[Operation]) -> tuple[Done, ...]:
    return tuple(Done(code if position == index else SUCCESS) for position in range(len(operations)))


def _bump_refusal(bump: FeeBump, moment: _Moment, accounts: Accounts) -> Outcome | None:
    signatures = Signatures(bump.hash, bump.signatures)
    payer = accounts.get(bump.fee_source)
    code = _bump_fault(bump, moment.header, payer, signatures)
    if code is not None:
        return Outcome(code)
    if not signatures.are_all_used():
        return Outcome("tx_bad_auth_extra")
    inner = _refusal(bump.inner, moment, accounts, charges=False)
    return inner and inner.bumped()


def _bump_fault(bump: FeeBump, header: Header, payer: Account | None, signatures: Signatures) -> str | None:
    own, inner = least_fee_stroops(bump, header), least_fee_stroops(bump.inner, header)
    if bump.fee_stroops < own or bump.fee_stroops * inner < bump.inner.fee_stroops * own:
        return "tx_insufficient_fee"
    if payer is None:
        return "tx_no_source_account"
    if not signatures.weigh(payer.all_signers(), payer.low):
        return "tx_bad_auth"
    return "tx_insufficient_balance" if header.available_stroops(payer) < bump.fee_stroops else None


def _look(
    transaction: Transaction, moment: _Moment, accounts: Accounts, signatures: Signatures, *, charges: bool
) -> _Look:
    """Everything but the operations, in Stellar's order."""
    code = _shape_fault(transaction) or _time_fault(transaction, moment)
    if code is not None:
        return _Look(code)
    if charges and transaction.fee_stroops < least_fee_stroops(transaction, moment.header):
        return _Look("tx_insufficient_fee")
    account = accounts.get(transaction.source)
    if account is None:
        return _Look("tx_no_source_account")
    if not _follows(transaction, account, moment.header):
        return _Look("tx_bad_seq")
    return _look_at_account(transaction, account, moment, signatures, charges=charges)


def _look_at_account(
    transaction: Transaction, account: Account, moment: _Moment, signatures: Signatures, *, charges: bool
) -> _Look:
    if _is_too_young(transaction, account, moment.header):
        return _Look("tx_bad_minseq_age_or_gap", has_number=True)
    extra = tuple(Signer(each, 1) for each in transaction.extra_signers)
    if not signatures.weigh(account.all_signers(), account.low):
        return _Look("tx_bad_auth", has_number=True)
    if extra and not signatures.weigh(extra, len(extra)):
        return _Look("tx_bad_auth", has_number=True)
    fee = 0 if moment.applying or not charges else transaction.fee_stroops
    if charges and moment.header.available_stroops(account) < fee:
        return _Look("tx_insufficient_balance", has_number=True, is_authentic=True)
    return _GOOD


def _shape_fault(transaction: Transaction) -> str | None:
    if not transaction.is_supported:
        return "tx_not_supported"
    if len(set(transaction.extra_signers)) < len(transaction.extra_signers):
        return "tx_malformed"
    return None if transaction.operations else "tx_missing_operation"


def _time_fault(transaction: Transaction, moment: _Moment) -> str | None:
    header = moment.header
    if transaction.min_time > header.closed_at or transaction.min_ledger > header.sequence:
        return "tx_too_early"
    is_over = transaction.max_time != 0 and transaction.max_time < moment.latest
    if is_over or 0 < transaction.max_ledger <= header.sequence:
        return "tx_too_late"
    return None


def _follows(transaction: Transaction, account: Account, header: Header) -> bool:
    """Whether its number is one that the account may use now."""
    if transaction.sequence == header.first_sequence():
        return False  # an account made in this ledger begins with it
    if transaction.min_sequence is not None:
        return transaction.min_sequence <= account.sequence < transaction.sequence
    return account.sequence < _MOST_SEQUENCE and account.sequence + 1 == transaction.sequence


def _is_too_young(transaction: Transaction, account: Account, header: Header) -> bool:
    is_recent = header.closed_at - transaction.min_age_seconds < account.sequence_time
    return is_recent or header.sequence - transaction.min_ledger_gap < account.sequence_ledger


def _unsigned(transaction: Transaction, index: int, accounts: Accounts, signatures: Signatures) -> str | None:
    """The code for an operation that its account has not signed; an account may come to be before its turn."""
    operation = transaction.operations[index]
    account = accounts.get(operation.source)
    if account is not None:
        needed = threshold(account, level(operation))
        return None if signatures.weigh(account.all_signers(), needed) else "op_bad_auth"
    if not transaction.own_source[index]:
        return "op_no_source_account"
    own = Signer(SignerKey("ed25519_public_key", operation.source), 1)
    return None if signatures.weigh((own,), 0) else "op_bad_auth"


def _apply_any(submission: Submission, header: Header, draft: Draft) -> Outcome:
    if isinstance(submission, FeeBump):
        _use_up(submission.hash, [submission.fee_source], header, draft)
        return _apply(submission.inner, header, draft, charges=False).bumped()
    return _apply(submission, header, draft, charges=True)


def _apply(transaction: Transaction, header: Header, draft: Draft, *, charges: bool) -> Outcome:
    signatures = Signatures(transaction.hash, transaction.signatures)
    moment = _Moment(header, header.closed_at, applying=True)
    look = _look(transaction, moment, draft, signatures, charges=charges)
    if look.has_number:
        _set_number(transaction, header, draft)
    if not look.is_authentic:
        return Outcome(look.code)
    codes = [_unsigned(transaction, index, draft, signatures) for index in range(len(transaction.operations))]
    _use_up(transaction.hash, [transaction.source, *(each.source for each in transaction.operations)], header, draft)
    if look.code != TX_SUCCESS:
        return Outcome(look.code)
    if any(codes):
        return Outcome(TX_FAILED, tuple(Done(code or SUCCESS) for code in codes))
    if not signatures.are_all_used():
        return Outcome("tx_bad_auth_extra")
    return _carry_out_all(transaction, header, draft)


def _set_number(transaction: Transaction, header: Header, draft: Draft) -> None:
    account = _existing(draft, transaction.source)
    draft.put(
        msgspec.structs.replace(
            account,
            sequence=transaction.sequence,
            sequence_ledger=header.sequence,
            sequence_time=header.closed_at,
            modified_ledger=header.sequence,
        )
    )


def _use_up(transaction_hash: bytes, sources: Sequence[bytes], header: Header, draft: Draft) -> None:
    """Remove the signer that stood for just this transaction."""
    used = SignerKey("preauth_tx", transaction_hash)
    for source in dict.fromkeys(sources):
        account = draft.get(source)
        if account is not None and any(each.key == used for each in account.signers):
            left = tuple(each for each in account.signers if each.key != used)
            draft.put(msgspec.structs.replace(account, signers=left, modified_ledger=header.sequence))


def _carry_out_all(transaction: Transaction, header: Header, draft: Draft) -> Outcome:
    """All or none; after a failure the rest is tried as well, for its codes."""
    inside, results = Draft(draft), []
    for operation in transaction.operations:
        source = inside.get(operation.source)
        done = carry_out(operation, source, header, inside) if source else Done("op_no_source_account")
        results.append(done)
    if any(done.code != SUCCESS for done in results):
        return Outcome(TX_FAILED, tuple(results))
    draft.keep(inside)
    return Outcome(TX_SUCCESS, tuple(results))
