"""Why a ledger does not take a transaction, in words. Pure.

Owns the sentences, and which reasons pass by themselves. Must not know what the transaction was for.
"""

from __future__ import annotations

_MEANINGS = {
    "tx_bad_seq": "its number is not the next one of its account (something else was sent from it meanwhile)",
    "tx_too_early": "it is not due yet",
    "tx_too_late": "it came too late",
    "tx_insufficient_fee": "the ledger asks a higher fee at the moment",
    "tx_insufficient_balance": "the account has too little for the fee above what must stay in it",
    "tx_no_source_account": "its account is not on the ledger",
    "tx_bad_auth": "a signature is lacking, or the signatures are for another network",
    "tx_bad_auth_extra": "there are more signatures than are needed",
    "tx_malformed": "the ledger cannot read it",
    "tx_bad_min_seq_age_or_gap": "it is not due yet",
    "op_underfunded": "the account has too little above what must stay in it",
    "op_no_destination": "the account that shall be paid is not on the ledger",
    "op_low_reserve": "a new account needs more than that to begin with",
    "op_already_exists": "the account is there already",
    "op_line_full": "the account that shall be paid cannot hold more",
    "op_has_sub_entries": "the account still has entries of its own",
    "op_bad_auth": "a signature is lacking",
}
_PASSING = frozenset({"tx_too_early", "tx_bad_min_seq_age_or_gap", "tx_insufficient_fee", "tx_internal_error"})
FEE_TOO_LOW = "tx_insufficient_fee"
WRONG_NUMBER = "tx_bad_seq"
NO_ACCOUNT = "tx_no_source_account"


def sentence(codes: tuple[str, ...]) -> str:
    """The first reason that says most: an operation's before the transaction's."""
    telling = [code for code in codes if code not in {"tx_failed", "op_success"}]
    code = next((code for code in telling if code.startswith("op_")), telling[0] if telling else "tx_failed")
    return _MEANINGS.get(code, f"the ledger's reason is {code}")


def may_pass(codes: tuple[str, ...]) -> bool:
    """Whether the same transaction may be taken later, with nothing done about it."""
    return bool(codes) and codes[0] in _PASSING
