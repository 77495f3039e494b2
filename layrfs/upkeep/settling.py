"""Ending a contract by its host's consent, when nothing needs it any more, or a later one covers what is needed.

Owns the order: the wish is on the disk, so that nothing is stored there any more; then the host signs; then the ledger
decides. Must not know when it is time for that (``policy.paymaster``). Invariant: the escrow's own signature goes to
nobody but the ledger, and while one end may still come no other is asked for.
"""

from __future__ import annotations

import logging

from layrfs.crashpoints import reached
from layrfs.errors import RemoteError
from layrfs.policy.ending import last_second
from layrfs.policy.paymaster import Contract, host_due
from layrfs.storage.database import Database
from layrfs.upkeep.agreeing import Agreements
from layrfs.upkeep.counterparts import Counterparts
from layrfs.upkeep.escrows import Escrows
from layrfs.wire.contracts import UNSIGNED, Settle, Settled, Standing, Stands

_log = logging.getLogger(__name__)


class Settling:
    """One volume's."""

    def __init__(self, database: Database, agreements: Agreements, escrows: Escrows, hosts: Counterparts) -> None:
        self._database = database
        self._agreements = agreements
        self._escrows = escrows
        self._hosts = hosts

    async def settle(self, contract: Contract) -> None:
        """One attempt. A host that does not agree now is paid on as before, and asked again. Raises ``LayrError``."""
        self._agreements.event(contract.number, "unwanted")
        await self._database.sync()
        reached("end wished")
        try:
            if await self._end(contract):
                self._over(contract)
        except RemoteError as error:
            _log.info("contract %d does not end by consent now: %s", contract.terms.number, error)

    async def look(self, contract: Contract) -> None:
        """Whether an earlier attempt has come. Raises ``RemoteError``."""
        if await self._escrows.is_settled(contract.terms):
            self._over(contract)

    def _over(self, contract: Contract) -> None:
        reached("end seen")
        self._agreements.event(contract.number, "merged")

    async def _end(self, contract: Contract) -> bool:
        terms, latest = contract.terms, last_second(contract.terms, int(self._escrows.now()))
        if latest is None or self._escrows.may_settle(terms):
            return False
        sequence = await self._escrows.number_for_end(contract)
        if sequence is None:
            return False
        asked = Standing(terms.tenant, terms.number, UNSIGNED)
        stands = await self._hosts.ask(terms.node, asked, Stands)
        if len(stands.batches) != len(contract.batches):
            return False  # another machine of the owner's has covered more since
        stroops = host_due(contract, latest)
        request = Settle(terms.tenant, terms.contract_id, stroops, sequence, latest, UNSIGNED)
        settled = await self._hosts.ask(terms.node, request, Settled)
        reached("end signed")
        await self._escrows.end(terms, request, settled.host_signature)
        return True
