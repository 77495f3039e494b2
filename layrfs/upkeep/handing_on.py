"""Whether a contract is handed on: a later one with its host covers all that is needed of what it covers.

Owns when that is looked at, as it takes a look at each piece. Must not know what becomes of the contract. Invariant: a
contract is never handed on while its host has covers that are not known here, or is to get pieces under it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from layrfs.policy.paymaster import Contract
from layrfs.storage.contracts import Contracts
from layrfs.upkeep.paid_market import PaidMarket

IsOnlyIn = Callable[[Contract, Sequence[int]], Awaitable[bool]]
"""Whether a contract covers something that is needed and that none of these others covers."""


class HandingOn:
    """One volume's."""

    def __init__(self, contracts: Contracts, market: PaidMarket, is_only_in: IsOnlyIn) -> None:
        self._contracts = contracts
        self._market = market
        self._is_only_in = is_only_in

    async def is_done(self, number: int) -> bool:
        """Raises ``LocalError``."""
        contract = self._contracts.get(number)
        if contract.state not in {"open", "settling"} or not contract.whole or self._market.expects(contract):
            return False
        later = self._later(contract)
        return bool(later) and not await self._is_only_in(contract, later) and not self._market.expects(contract)

    def _later(self, contract: Contract) -> list[int]:
        """Open ones with the same host."""
        others = self._contracts.of_host(contract.terms.node)
        return [each.number for each in others if each.state == "open" and each.terms.start > contract.terms.start]
