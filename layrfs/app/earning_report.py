"""What a host that is paid says of its money, from its record: earned, pending, at risk, by owner."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from layrfs.app.trade import Trade
from layrfs.model.hosted import Earnings, Hosted, Uncovered
from layrfs.policy.earning import earnings, was_settled
from layrfs.policy.pricing import due_stroops
from layrfs.storage.host_contracts import HostContracts
from layrfs.wire.contracts import EarningReport, OwnerReport

MOST_OWNERS = 200
"""Those who bring most; the sums are of all."""


def running(record: HostContracts) -> list[Hosted]:
    """Contracts from which something may still come."""
    return [one for one in record.kept() if one.state in {"open", "notice"}]


def earning_report(trade: Trade, balance_stroops: int | None, problem: str, now: int) -> EarningReport:
    """Up to now, by the ledger's clock."""
    tenants: dict[bytes, list[Hosted]] = {}
    for hosted in trade.record.all():
        tenants.setdefault(hosted.terms.tenant, []).append(hosted)
    owners = [_owner(trade.record, tenant, contracts, now) for tenant, contracts in tenants.items()]
    owners.sort(key=lambda owner: (-owner.earned_stroops - owner.pending_stroops, owner.tenant))
    return EarningReport(
        price=trade.offer.price,
        account=trade.offer.account,
        balance_stroops=balance_stroops,
        problem=problem,
        leaving=trade.record.leaving,
        running=len(running(trade.record)),
        earned_stroops=sum(owner.earned_stroops for owner in owners),
        pending_stroops=sum(owner.pending_stroops for owner in owners),
        at_risk_stroops=sum(owner.at_risk_stroops for owner in owners),
        owners=tuple(owners[:MOST_OWNERS]),
    )


def brought_by(record: HostContracts, contracts: Sequence[Hosted], now: int) -> Earnings:
    """What all contracts with one owner have brought up to now, of which there is one at least, oldest first."""
    newest = contracts[-1]
    uncovered = record.uncovered(newest.terms.tenant, now)
    brought = [_brought(record, one, uncovered if one is newest else Uncovered(), now) for one in contracts]
    return functools.reduce(Earnings.plus, brought)


def window_stroops(record: HostContracts, contracts: Sequence[Hosted]) -> int:
    """What a window of all that an owner has here is worth, in the largest of these contracts with it."""
    on_credit_bytes = record.uncovered(contracts[-1].terms.tenant, 0).bytes
    return max(
        due_stroops(
            one.terms.price,
            on_credit_bytes + sum(batch.bytes for batch in record.batches(one.number)),
            one.terms.window_seconds,
        )
        for one in contracts
    )


def _owner(record: HostContracts, tenant: bytes, contracts: list[Hosted], now: int) -> OwnerReport:
    newest = contracts[-1]
    total = brought_by(record, contracts, now)
    stored_bytes = sum(batch.bytes for batch in record.batches(newest.number)) + record.uncovered(tenant, now).bytes
    return OwnerReport(
        tenant,
        newest.state,
        stored_bytes,
        newest.terms.end,
        total.earned_stroops,
        total.pending_stroops,
        total.at_risk_stroops,
    )


def _brought(record: HostContracts, hosted: Hosted, uncovered: Uncovered, now: int) -> Earnings:
    settled = hosted.ending if was_settled(hosted) else None
    batches, owed = record.batches(hosted.number), record.instalments(hosted.number)
    until = min(now, hosted.since) if hosted.state == "ended" else now
    return earnings(hosted.terms, batches, owed, uncovered, until, settled)
