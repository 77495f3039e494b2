"""What each operation needs, when it makes no sense, and what it does to accounts. Pure.

Owns one page of rules for each operation, in the order in which Stellar looks (stellar-core's `*OpFrame.cpp`). Must
not know signatures, fees or envelopes. Codes are Horizon's. Invariant: an operation that fails leaves its draft as it
was.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from layrfs.payments.devledger.state import MOST_SIGNERS, Account, Draft, Header, Signer
from layrfs.payments.devledger.transactions import (
    AccountMerge,
    BumpSequence,
    CreateAccount,
    Operation,
    Payment,
    SetOptions,
    Unknown,
)

SUCCESS = "op_success"
MOST_STROOPS = (1 << 63) - 1
MOST_WEIGHT = 255

_REQUIRED, _REVOCABLE, _IMMUTABLE, _CLAWBACK = 1, 2, 4, 8
_ALL_FLAGS = _REQUIRED | _REVOCABLE | _IMMUTABLE | _CLAWBACK
_MOST_DOMAIN_CHARACTERS = 32

Level = Literal["low", "medium", "high"]


class Done(msgspec.Struct, frozen=True):
    """How one operation went; what a merge moved is part of its result."""

    code: str = SUCCESS
    merged_stroops: int = 0


def level(operation: Operation) -> Level:
    """Which threshold of its account an operation has to meet."""
    match operation:
        case AccountMerge():
            return "high"
        case BumpSequence():
            return "low"
        case SetOptions():
            changes = (operation.master_weight, operation.low, operation.medium, operation.high, operation.signer)
            return "medium" if all(each is None for each in changes) else "high"
    return "medium"


def threshold(account: Account, wanted: Level) -> int:
    """The weight that an account asks for."""
    return {"low": account.low, "medium": account.medium, "high": account.high}[wanted]


def malformed(operation: Operation) -> str | None:
    """The code of what makes no sense whatever the accounts are; None when it may."""
    match operation:
        case Unknown():
            return "op_not_supported"
        case CreateAccount(source, destination, stroops):
            return "op_malformed" if stroops < 0 or source == destination else None
        case Payment(stroops=stroops):
            return "op_malformed" if stroops <= 0 else None
        case AccountMerge(source, destination):
            return "op_malformed" if source == destination else None
        case BumpSequence(to=to):
            return "op_bad_seq" if to < 0 else None
        case SetOptions():
            return _malformed_options(operation)


def _malformed_options(options: SetOptions) -> str | None:
    set_flags, clear_flags = options.set_flags or 0, options.clear_flags or 0
    if (set_flags | clear_flags) & ~_ALL_FLAGS:
        return "op_unknown_flag"
    if set_flags & clear_flags:
        return "op_bad_flags"
    weights = (options.master_weight, options.low, options.medium, options.high)
    if any(each is not None and each > MOST_WEIGHT for each in weights):
        return "op_threshold_out_of_range"
    if options.signer is not None and (options.signer.key == options.source or options.signer_weight > MOST_WEIGHT):
        return "op_bad_signer"
    if options.home_domain is not None and not _is_domain(options.home_domain):
        return "op_invalid_home_domain"
    return None


def _is_domain(name: str) -> bool:
    return len(name) <= _MOST_DOMAIN_CHARACTERS and (not name or name.isprintable())


def carry_out(operation: Operation, source: Account, header: Header, draft: Draft) -> Done:
    """Do it, for an account that is there. `header` is the ledger's that is being closed."""
    code = malformed(operation)
    if code is not None:
        return Done(code)
    match operation:
        case CreateAccount():
            return _create(operation, source, header, draft)
        case Payment():
            return _pay(operation, source, header, draft)
        case AccountMerge():
            return _merge(operation, source, header, draft)
        case SetOptions():
            return _set_options(operation, source, header, draft)
        case BumpSequence():
            return _bump(operation, source, header, draft)
        case Unknown():
            raise AssertionError("malformed everywhere")


def _create(operation: CreateAccount, source: Account, header: Header, draft: Draft) -> Done:
    if draft.get(operation.destination) is not None:
        return Done("op_already_exists")
    new = Account(operation.destination, operation.stroops, header.first_sequence(), modified_ledger=header.sequence)
    if header.available_stroops(new) < 0:
        return Done("op_low_reserve")
    if header.available_stroops(source) < operation.stroops:
        return Done("op_underfunded")
    draft.put(_changed(source, header, balance_stroops=source.balance_stroops - operation.stroops))
    draft.put(new)
    return Done()


def _pay(operation: Payment, source: Account, header: Header, draft: Draft) -> Done:
    if operation.destination == operation.source:
        return Done()  # Stellar does not look at the balance for this
    destination = draft.get(operation.destination)
    if destination is None:
        return Done("op_no_destination")
    if header.available_stroops(source) < operation.stroops:
        return Done("op_underfunded")
    if destination.balance_stroops + operation.stroops > MOST_STROOPS:
        return Done("op_line_full")
    draft.put(_changed(source, header, balance_stroops=source.balance_stroops - operation.stroops))
    draft.put(_changed(destination, header, balance_stroops=destination.balance_stroops + operation.stroops))
    return Done()


def _merge(operation: AccountMerge, source: Account, header: Header, draft: Draft) -> Done:
    destination = draft.get(operation.destination)
    if destination is None:
        return Done("op_no_account")
    if source.flags & _IMMUTABLE:
        return Done("op_immutable_set")
    if source.sequence >= header.first_sequence():
        return Done("op_seq_num_too_far")  # made anew, it would begin below: everything it signed could be replayed
    if destination.balance_stroops + source.balance_stroops > MOST_STROOPS:
        return Done("op_dest_full")
    draft.put(_changed(destination, header, balance_stroops=destination.balance_stroops + source.balance_stroops))
    draft.remove(source.key)
    return Done(merged_stroops=source.balance_stroops)


def _bump(operation: BumpSequence, source: Account, header: Header, draft: Draft) -> Done:
    """The age of the sequence number begins anew, also when the number stays."""
    draft.put(
        _changed(
            source,
            header,
            sequence=max(source.sequence, operation.to),
            sequence_ledger=header.sequence,
            sequence_time=header.closed_at,
        )
    )
    return Done()


def _set_options(operation: SetOptions, source: Account, header: Header, draft: Draft) -> Done:
    flags = source.flags & ~(operation.clear_flags or 0) | (operation.set_flags or 0)
    if flags != source.flags and source.flags & _IMMUTABLE:
        return Done("op_cant_change")
    if flags & _CLAWBACK and not flags & _REVOCABLE:
        return Done("op_auth_revocable_required")
    changed = _changed(
        source,
        header,
        flags=flags,
        master_weight=_or(operation.master_weight, source.master_weight),
        low=_or(operation.low, source.low),
        medium=_or(operation.medium, source.medium),
        high=_or(operation.high, source.high),
        home_domain=source.home_domain if operation.home_domain is None else operation.home_domain,
    )
    return _set_signer(operation, changed, header, draft)


def _set_signer(operation: SetOptions, account: Account, header: Header, draft: Draft) -> Done:
    if operation.signer is None:
        draft.put(account)
        return Done()
    others = tuple(each for each in account.signers if each.key != operation.signer)
    is_new = len(others) == len(account.signers)
    if operation.signer_weight == 0:
        draft.put(_changed(account, header, signers=others))
        return Done()
    if is_new and len(others) >= MOST_SIGNERS:
        return Done("op_too_many_signers")
    signers = sorted((*others, Signer(operation.signer, operation.signer_weight)), key=lambda each: each.key)
    changed = _changed(account, header, signers=tuple(signers))
    if is_new and header.available_stroops(changed) < 0:
        return Done("op_low_reserve")
    draft.put(changed)
    return Done()


def _or(new: int | None, old: int) -> int:
    return old if new is None else new


def _changed(account: Account, header: Header, **changes: object) -> Account:
    return msgspec.structs.replace(account, modified_ledger=header.sequence, **changes)
