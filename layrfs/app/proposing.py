"""What a host that is paid agrees to: an owner's terms, or why not.

Owns the look at terms and their way onto the record. Must not know what becomes of a contract then, or connections.
Invariants: an escrow is on record for one contract; strangers' terms cost nobody anything, and the ledger is asked only
for what cannot be known without it.
"""

from __future__ import annotations

import logging

from layrfs.app.earning_report import brought_by, window_stroops
from layrfs.app.trade import Trade
from layrfs.crashpoints import reached
from layrfs.model.contracts import Terms, terms_untrusted
from layrfs.model.hosted import Hosted
from layrfs.model.ledger import LedgerHead
from layrfs.payments import envelopes
from layrfs.payments.ledger import Ledger
from layrfs.policy import earning
from layrfs.policy.agreeing import terms_faults
from layrfs.wire import contracts
from layrfs.wire.contracts import ContractResponse
from layrfs.wire.messages import Refused

MOST_AGREED = 1024
"""Contracts whose escrow has not come. They cost nobody anything to ask for, so the oldest make room for new ones: an
owner who has paid meanwhile proposes the same again, and the ledger says that it was set up."""

_log = logging.getLogger(__name__)


class Proposals:
    """One host's; on the trio thread."""

    def __init__(self, trade: Trade) -> None:
        self._trade = trade
        self._record = trade.record
        self._is_on_ledger = False

    async def answer(self, request: contracts.Propose) -> ContractResponse | Refused:
        """Raises BadMessage, LocalError, LedgerUnavailable, WrongLedger."""
        terms = terms_untrusted(request.terms)
        if self._record.find(terms.contract_id) is None:
            refusal = await self._refusal(terms, request.tenant)
            if refusal is not None:
                return refusal
            head = await self._trade.clock.head()
            late = bool(terms_faults(terms, self._trade.offer, self._trade.node, request.tenant, head))
            if not self._is_escrow_free(terms):
                _log.warning("Terms were refused: another contract has their escrow")
                return Refused("bad terms")
            self._make_room()
            self._record.add(terms, head.closed_at, late=late)
            await self._trade.database.sync()
            reached("contract agreed")
        setup = envelopes.setup(terms)
        return contracts.Agreed(setup.sign(self._trade.private) if terms.collateral_stroops else b"")

    def _is_escrow_free(self, terms: Terms) -> bool:
        """One escrow pays for one contract: an account shows neither tenant nor price, so others' terms may fit it too.

        What was only agreed to gives way to its own tenant's: who did not hear that we agreed has made other terms.
        """
        other = self._record.of_escrow(terms.escrow)
        if other is None or other.terms == terms:
            return True
        if other.state != "agreed" or other.terms.tenant != terms.tenant:
            return False
        self._record.forget(other.number)
        return True

    def _make_room(self) -> None:
        waiting = [one for one in self._record.kept() if one.state == "agreed"]
        for oldest in waiting[: max(0, len(waiting) + 1 - MOST_AGREED)]:
            self._record.forget(oldest.number)

    async def _refusal(self, terms: Terms, tenant: bytes) -> Refused | None:
        """Why these terms are not agreed to. Those of an escrow that is there were once, and our record was lost."""
        offer = self._trade.offer
        if self._record.leaving:
            return Refused("leaving")
        if any(self._is_kept_for_nothing(one) for one in self._record.of_tenant(tenant)):
            return Refused("ending")
        if self._is_in_arrears(tenant):
            return Refused("no credit")
        if terms.network != offer.network:
            return Refused("wrong ledger")
        if terms.price < offer.price:
            return Refused("wrong price")
        then = LedgerHead(terms.last_setup_ledger - 1, terms.start, 0, 0)
        faults = terms_faults(terms, offer, self._trade.node, tenant, then)  # whenever that was: nobody has to be asked
        if not faults:
            if not await self._has_account():
                return Refused("not on the ledger")
            faults = await self._faults_now(terms, tenant)
        if not faults:
            return None
        _log.warning("Terms were refused: %s", "; ".join(faults))
        return Refused("bad terms")

    def _is_kept_for_nothing(self, hosted: Hosted) -> bool:
        """Whether it has ended by consent, and has pieces here still for which nobody pays: there is no end to that
        when another contract may follow each time."""
        return earning.was_settled(hosted) and not hosted.released and not self._record.is_followed(hosted.number)

    def _is_in_arrears(self, tenant: bytes) -> bool:
        """Whether it has too much here that was never paid for. One who has nothing here may begin anew."""
        known = [one for one in self._record.of_tenant(tenant) if one.state != "agreed"]
        if all(one.released for one in known):
            return False
        brought = brought_by(self._record, known, self._trade.clock.last_known())
        return earning.is_in_arrears(brought, window_stroops(self._record, known))

    async def _has_account(self) -> bool:
        """Once seen it is taken for granted: strangers could have us ask the ledger for it all day."""
        if not self._is_on_ledger:
            self._is_on_ledger = await self._trade.ledger.account(self._trade.offer.account) is not None
        return self._is_on_ledger

    async def _faults_now(self, terms: Terms, tenant: bytes) -> tuple[str, ...]:
        """Those that come from when it is; none when the set-up is on the ledger, just as it had to be."""
        head = await self._trade.clock.head()
        faults = terms_faults(terms, self._trade.offer, self._trade.node, tenant, head)
        was_set_up = bool(faults) and head.closed_at < terms.end and await is_set_up(self._trade.ledger, terms)
        return () if was_set_up else faults


async def is_set_up(ledger: Ledger, terms: Terms) -> bool:
    """Whether the escrow came to be, just as the terms say. Raises LedgerUnavailable, WrongLedger."""
    setup = await ledger.transaction(envelopes.setup(terms).hash)
    return setup is not None and setup.successful
