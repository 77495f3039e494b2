"""What an escrow on the ledger has to be before anybody relies on it: exactly what the terms say, nothing more.

Must not know how accounts are read. Invariant: only the agreed transactions can empty an escrow without a fault.
"""

from __future__ import annotations

from layrfs.model.contracts import Terms
from layrfs.model.ledger import LedgerAccount, LedgerSigner
from layrfs.payments.envelopes import THRESHOLD, refund, sequence


def escrow_faults(
    terms: Terms, account: LedgerAccount | None, needed_stroops: int, *, passed: int = 0
) -> tuple[str, ...]:
    """A sentence for each thing that is wrong with the account; empty: it is the contract's escrow, and good.

    ``needed_stroops``: `layrfs.policy.pricing` says so. ``passed``: instalments up to the last one claimed.
    """
    if account is None:
        return ("the escrow is not on the ledger",)
    agreed = _signers(terms)
    found = {
        "the account is not the contract's escrow": account.key != terms.escrow,
        "the escrow's thresholds are not what was agreed": account.thresholds != (THRESHOLD, THRESHOLD, THRESHOLD),
        "the escrow has a signer that was not agreed on": not _keys(account.signers) <= _keys(agreed),
        "the escrow lacks a signer that was agreed on": not _keys(agreed) <= _keys(account.signers),
        "a signer of the escrow does not weigh what was agreed": any(
            one.weight != two.weight
            for one in agreed
            for two in account.signers
            if (one.kind, one.key) == (two.kind, two.key)
        ),
        "the escrow has entries that were not agreed on": account.subentries != len(agreed) - 1,
        "somebody else pays the escrow's reserve, and could take it back": (
            account.sponsors > 0 or any(signer.sponsored for signer in account.signers)
        ),
        "the escrow pays somebody else's reserve": account.sponsoring > 0,
        "the escrow has flags set": account.flags != 0,
        "the escrow owes something": account.liabilities_stroops > 0,
        "the escrow holds less than its instalments, reserve and fees need": account.balance_stroops < needed_stroops,
        "the escrow's sequence number is past an instalment that is still to come": (
            account.sequence >= sequence(terms, passed + 1)
        ),
    }
    return tuple(sentence for sentence, is_so in found.items() if is_so)


def _signers(terms: Terms) -> tuple[LedgerSigner, ...]:
    return (
        LedgerSigner("key", terms.escrow, 1),
        LedgerSigner("key", terms.host, 1),
        LedgerSigner("preauth", refund(terms).hash, THRESHOLD),
    )


def _keys(signers: tuple[LedgerSigner, ...]) -> set[tuple[str, bytes]]:
    return {(signer.kind, signer.key) for signer in signers}
