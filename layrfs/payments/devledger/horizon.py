"""The ledger's things as Horizon's JSON shows them: accounts, ledgers, transactions, operations, problems. Pure.

Owns the shapes, after Horizon's reference (developers.stellar.org/docs/data/apis/horizon). Must not know HTTP or where
things are kept. Amounts are decimal strings of lumens, sequence numbers are strings.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Sequence
from typing import Any

from stellar_sdk import StrKey

from layrfs.model.lumens import ledger_amount
from layrfs.payments.devledger.books import Closing, Entry
from layrfs.payments.devledger.operations import Done
from layrfs.payments.devledger.results import result_xdr
from layrfs.payments.devledger.rules import Outcome
from layrfs.payments.devledger.state import TOTAL_STROOPS, Account, Header, Signer, SignerKey
from layrfs.payments.devledger.transactions import (
    AccountMerge,
    BumpSequence,
    CreateAccount,
    FeeBump,
    Operation,
    Payment,
    SetOptions,
    Submission,
    Transaction,
)

Json = dict[str, Any]

PROTOCOL = 19
_PROBLEMS = "https://stellar.org/horizon-errors/"
_PERCENTILES = ("max", "min", "mode", *(f"p{each}" for each in (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)))
_FLAGS = ("auth_required", "auth_revocable", "auth_immutable", "auth_clawback_enabled")


def address(key: bytes) -> str:
    """G..."""
    return StrKey.encode_ed25519_public_key(key)


def moment(seconds: int) -> str:
    """ISO 8601, as UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def root_json(passphrase: str, header: Header, base: str) -> Json:
    """The first page."""
    return {
        "_links": {
            "account": {"href": base + "accounts/{account_id}", "templated": True},
            "friendbot": {"href": base + "friendbot{?addr}", "templated": True},
            "transactions": {"href": base + "transactions{?cursor,limit,order}", "templated": True},
            "self": {"href": base},
        },
        "horizon_version": "LayrFS development ledger",
        "core_version": "LayrFS development ledger",
        "ingest_latest_ledger": header.sequence,
        "history_latest_ledger": header.sequence,
        "history_latest_ledger_closed_at": moment(header.closed_at),
        "history_elder_ledger": 1,
        "core_latest_ledger": header.sequence,
        "network_passphrase": passphrase,
        "current_protocol_version": PROTOCOL,
        "supported_protocol_version": PROTOCOL,
        "core_supported_protocol_version": PROTOCOL,
    }


def account_json(account: Account, header: Header, base: str) -> Json:
    """An account; its own key is always among the signers."""
    name = address(account.key)
    own = Signer(SignerKey("ed25519_public_key", account.key), account.master_weight)
    found: Json = {
        "_links": {"self": {"href": f"{base}accounts/{name}"}},
        "id": name,
        "account_id": name,
        "sequence": str(account.sequence),
        "subentry_count": len(account.signers),
        "last_modified_ledger": account.modified_ledger,
        "last_modified_time": moment(header.closed_at),
        "thresholds": {
            "low_threshold": account.low,
            "med_threshold": account.medium,
            "high_threshold": account.high,
        },
        "flags": {flag: bool(account.flags >> bit & 1) for bit, flag in enumerate(_FLAGS)},
        "balances": [
            {
                "balance": ledger_amount(account.balance_stroops),
                "buying_liabilities": "0.0000000",
                "selling_liabilities": "0.0000000",
                "asset_type": "native",
            }
        ],
        "signers": [_signer(each) for each in (*account.signers, own)],
        "data": {},
        "num_sponsoring": 0,
        "num_sponsored": 0,
        "paging_token": name,
    }
    if account.sequence_ledger:
        found |= {"sequence_ledger": account.sequence_ledger, "sequence_time": str(account.sequence_time)}
    return found | ({"home_domain": account.home_domain} if account.home_domain else {})


def _signer(signer: Signer) -> Json:
    return {"weight": signer.weight, "key": signer_name(signer.key), "type": signer.key.kind}


def signer_name(key: SignerKey) -> str:
    """G..., X... or T..."""
    if key.kind == "sha256_hash":
        return StrKey.encode_sha256_hash(key.key)
    return StrKey.encode_pre_auth_tx(key.key) if key.kind == "preauth_tx" else address(key.key)


def ledger_json(closing: Closing, base: str) -> Json:
    """A closed ledger."""
    header = closing.header
    return {
        "_links": {"self": {"href": f"{base}ledgers/{header.sequence}"}},
        "id": str(header.sequence),
        "paging_token": str(header.sequence << 32),
        "sequence": header.sequence,
        "successful_transaction_count": closing.successful,
        "failed_transaction_count": closing.failed,
        "operation_count": closing.operations,
        "closed_at": moment(header.closed_at),
        "total_coins": ledger_amount(TOTAL_STROOPS),
        "fee_pool": ledger_amount(header.fee_pool_stroops),
        "base_fee_in_stroops": header.base_fee_stroops,
        "base_reserve_in_stroops": header.base_reserve_stroops,
        "max_tx_set_size": 1000,
        "protocol_version": PROTOCOL,
    }


def fee_stats_json(header: Header) -> Json:
    """There is always room here: the base fee is enough."""
    fees = {each: str(header.base_fee_stroops) for each in _PERCENTILES}
    return {
        "last_ledger": str(header.sequence),
        "last_ledger_base_fee": str(header.base_fee_stroops),
        "ledger_capacity_usage": "0",
        "fee_charged": fees,
        "max_fee": fees,
    }


def transaction_json(entry: Entry, submission: Submission, base: str, asked: bytes | None = None) -> Json:
    """A transaction in a ledger; a fee bump under the hash by which it was asked for."""
    inner, known_as = submission.inner, entry.hash if asked is None else asked
    found: Json = {
        "_links": {"self": {"href": f"{base}transactions/{known_as.hex()}"}},
        "id": known_as.hex(),
        "paging_token": str(entry.token),
        "successful": entry.outcome.is_success,
        "hash": known_as.hex(),
        "ledger": entry.ledger,
        "created_at": moment(entry.closed_at),
        "source_account": address(inner.source),
        "source_account_sequence": str(inner.sequence),
        "fee_account": address(submission.fee_source),
        "fee_charged": str(entry.fee_stroops),
        "max_fee": str(submission.fee_stroops),
        "operation_count": len(inner.operations),
        "envelope_xdr": entry.envelope,
        "result_xdr": result_xdr(submission, entry.outcome, entry.fee_stroops),
        "signatures": _signatures(inner if known_as == inner.hash else submission),
        "preconditions": _preconditions(inner),
    }
    if isinstance(submission, FeeBump):
        found["fee_bump_transaction"] = {"hash": submission.hash.hex(), "signatures": _signatures(submission)}
        found["inner_transaction"] = {
            "hash": inner.hash.hex(),
            "signatures": _signatures(inner),
            "max_fee": str(inner.fee_stroops),
        }
    return found | _memo(inner)


def _signatures(submission: Submission) -> list[str]:
    return [base64.b64encode(each.signature).decode() for each in submission.signatures]


def _memo(transaction: Transaction) -> Json:
    kind, content = transaction.memo.kind, transaction.memo.content
    if kind == "none":
        return {"memo_type": kind}
    if kind == "text":
        encoded = base64.b64encode(content).decode()
        return {"memo_type": kind, "memo": content.decode("utf-8", "replace"), "memo_bytes": encoded}
    return {"memo_type": kind, "memo": content.decode() if kind == "id" else base64.b64encode(content).decode()}


def _preconditions(transaction: Transaction) -> Json:
    found: Json = {}
    if transaction.min_time or transaction.max_time:
        times = {"min_time": str(transaction.min_time)}
        found["timebounds"] = times | ({"max_time": str(transaction.max_time)} if transaction.max_time else {})
    if transaction.min_ledger or transaction.max_ledger:
        ledgers = {"min_ledger": transaction.min_ledger}
        found["ledgerbounds"] = ledgers | ({"max_ledger": transaction.max_ledger} if transaction.max_ledger else {})
    if transaction.min_sequence is not None:
        found["min_account_sequence"] = str(transaction.min_sequence)
    if transaction.min_age_seconds:
        found["min_account_sequence_age"] = str(transaction.min_age_seconds)
    if transaction.min_ledger_gap:
        found["min_account_sequence_ledger_gap"] = transaction.min_ledger_gap
    if transaction.extra_signers:
        found["extra_signers"] = [signer_name(each) for each in transaction.extra_signers]
    return found


def operation_json(entry: Entry, submission: Submission, token: int, base: str) -> Json:
    """One operation of a transaction in a ledger."""
    operation = submission.inner.operations[token - entry.token - 1]
    return {
        "_links": {"transaction": {"href": f"{base}transactions/{entry.hash.hex()}"}},
        "id": str(token),
        "paging_token": str(token),
        "transaction_successful": entry.outcome.is_success,
        "source_account": address(operation.source),
        "created_at": moment(entry.closed_at),
        "transaction_hash": entry.hash.hex(),
        **_details(operation),
    }


def moves_lumens(operation: Operation) -> bool:
    """Whether Horizon lists it among payments."""
    return isinstance(operation, CreateAccount | Payment | AccountMerge)


def _details(operation: Operation) -> Json:
    match operation:
        case CreateAccount(source, destination, stroops):
            made = {
                "starting_balance": ledger_amount(stroops),
                "funder": address(source),
                "account": address(destination),
            }
            return {"type": "create_account", "type_i": 0, **made}
        case Payment(source, destination, stroops):
            paid = {"from": address(source), "to": address(destination), "amount": ledger_amount(stroops)}
            return {"type": "payment", "type_i": 1, "asset_type": "native", **paid}
        case AccountMerge(source, destination):
            return {"type": "account_merge", "type_i": 8, "account": address(source), "into": address(destination)}
        case BumpSequence(to=to):
            return {"type": "bump_sequence", "type_i": 11, "bump_to": str(to)}
        case SetOptions():
            return {"type": "set_options", "type_i": 5, **_options(operation)}
    return {"type": "unknown", "type_i": operation.kind}


def _options(options: SetOptions) -> Json:
    found: Json = {
        "master_key_weight": options.master_weight,
        "low_threshold": options.low,
        "med_threshold": options.medium,
        "high_threshold": options.high,
        "home_domain": options.home_domain,
    }
    if options.signer is not None:
        found |= {"signer_key": signer_name(options.signer), "signer_weight": options.signer_weight}
    for name, flags in (("set_flags", options.set_flags), ("clear_flags", options.clear_flags)):
        if flags:
            found[name] = [1 << bit for bit in range(len(_FLAGS)) if flags >> bit & 1]
    return {name: value for name, value in found.items() if value is not None}


def page_json(records: Sequence[Json], here: str, onward: str, back: str) -> Json:
    """A part of a list, with the ways on and back."""
    links = {"self": {"href": here}, "next": {"href": onward}, "prev": {"href": back}}
    return {"_links": links, "_embedded": {"records": list(records)}}


def problem_json(status: int, kind: str, title: str, detail: str, extras: Json | None = None) -> Json:
    """RFC 7807, with Horizon's extras where there are any."""
    found = {"type": _PROBLEMS + kind, "title": title, "status": status, "detail": detail}
    return found | ({"extras": extras} if extras else {})


def failed_json(envelope: str, submission: Submission, outcome: Outcome, fee_stroops: int = 0) -> Json:
    """The problem of a transaction that did not take effect."""
    codes: Json = {"transaction": outcome.code}
    if outcome.inner is not None:
        codes["inner_transaction"] = outcome.inner
    if any(each != Done() for each in outcome.operations):
        codes["operations"] = [each.code for each in outcome.operations]
    return problem_json(
        400,
        "transaction_failed",
        "Transaction Failed",
        "The transaction failed when it was submitted to the ledger; extras.result_codes says why.",
        {
            "envelope_xdr": envelope,
            "hash": submission.hash.hex(),
            "result_codes": codes,
            "result_xdr": result_xdr(submission, outcome, fee_stroops),
        },
    )
