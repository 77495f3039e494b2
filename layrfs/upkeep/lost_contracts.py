"""Contracts that are on the ledger and not on record: of a machine that is gone, or records that were made anew.

Owns reading the account's history for them. Must not know what is due in a contract. What was covered in them is not
known here, so they take no more pieces; what falls due is paid, as salts follow from the phrase, and the escrow comes
back. Those that are over are put on record as well: their numbers are used. Invariant: terms are believed when they
build the very set-up that is on the ledger.
"""

from __future__ import annotations

import logging

import msgspec

from layrfs.errors import BadMessage, RemoteError
from layrfs.model.contracts import Terms, terms_untrusted
from layrfs.model.ledger import LedgerTransaction
from layrfs.payments.envelopes import setup
from layrfs.payments.ledger import Ledger
from layrfs.payments.rediscovering import found_terms
from layrfs.policy.paymaster import Contract, is_complete
from layrfs.storage.contracts import LOOKED_FOR, Contracts
from layrfs.storage.journal import Journal
from layrfs.upkeep.counterparts import Counterparts
from layrfs.wire.contracts import UNSIGNED, Standing, Stands

_log = logging.getLogger(__name__)


class LostContracts:
    """One volume's."""

    def __init__(
        self, *, contracts: Contracts, marks: Journal, ledger: Ledger, hosts: Counterparts, wallet_private: bytes
    ) -> None:
        self._contracts = contracts
        self._marks = marks
        self._ledger = ledger
        self._hosts = hosts
        self._private = wallet_private

    async def find(self, account: bytes) -> int:
        """Put on record what is missing there; how many contracts that were. Raises ``LedgerUnavailable``."""
        name, found = f"{LOOKED_FOR}: {self._ledger.passphrase}", 0
        while True:
            cursor = str(self._marks.mark(name) or "")
            page = await self._ledger.history(account, cursor)
            found += sum(self._add(transaction) for transaction in page.transactions)
            if page.cursor == cursor or not page.transactions:
                return found
            self._marks.set_mark(name, page.cursor)

    def _add(self, transaction: LedgerTransaction) -> bool:
        terms = found_terms(transaction, self._ledger.passphrase, self._private)
        if terms is None or any(terms.escrow == each.escrow for each in self._contracts.terms_with(terms.node)):
            return False
        known = msgspec.structs.replace(terms, tenant=self._hosts.tenant(terms.node))
        self._contracts.add(known, "open", whole=False)
        _log.warning("contract %d with host %s is on the ledger only", terms.number, terms.node.hex()[:12])
        return True

    async def complete(self, now: float) -> int:
        """Have hosts say what was agreed; how many contracts nobody said that of yet. ``now``: by the ledger."""
        for contract in self._incomplete(now):
            self._contracts.set_terms(contract.number, await self._as_known_there(contract.terms))
        return len(self._incomplete(now))

    def _incomplete(self, now: float) -> list[Contract]:
        open_ = (each for each in self._contracts.live() if each.state == "open" and now < each.terms.end)
        return [each for each in open_ if not is_complete(each)]

    async def _as_known_there(self, terms: Terms) -> Terms:
        """With the price, which is in the contract's id; without it, while the host says nothing."""
        try:
            stands = await self._hosts.ask(terms.node, Standing(terms.tenant, terms.number, UNSIGNED), Stands)
            said = terms_untrusted(stands.terms)
        except (RemoteError, BadMessage) as error:
            _log.info("host %s does not say what was agreed: %s", terms.node.hex()[:12], error)
            return terms
        is_so = msgspec.structs.replace(said, price=terms.price) == terms and setup(said).hash == setup(terms).hash
        return said if is_so else terms
