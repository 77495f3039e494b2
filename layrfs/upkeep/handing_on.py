"""Whether a contract is handed on: a later one with its host covers all that is needed of what it covers.

Owns when that is looked at, as it takes a look at each piece. Must not know what becomes of the contract. Invariants: a
contract is never handed on while its host has covers that are not known here, or is to get pieces under it; one that
has further windows to pay for is handed on as a whole, as each of its instalments pays for all it covers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from layrfs.policy.paymaster import Contract, paid_until
from layrfs.storage.contracts import Contracts
from layrfs.upkeep.escrows import Escrows
from layrfs.upkeep.paid_market import PaidMarket

IsOnlyIn = Callable[[Contract, Sequence[int], Sequence[int]], Awaitable[bool]]
"""Whether a contract covers something that is needed and that none of these others covers, and that does not wait for
that in one of the last."""


class HandingOn:
    """One volume's."""

    def __init__(self, contracts: Contracts, market: PaidMarket, escrows: Escrows, is_only_in: IsOnlyIn) -> None:
        self._contracts = contracts
        self._market = market
        self._escrows = escrows
        self._is_only_in = is_only_in

    async def is_done(self, number: int) -> bool:
        """The market is told what may be handed on. Raises ``LocalError``."""
        contract = self._contracts.get(number)
        if contract.state not in {"open", "settling"} or not contract.whole or self._market.expects(contract):
            return False
        later = self._later(contract)
        if not later:
            return False
        is_needed = await self._is_only_in(contract, later, ())
        if is_needed and self._is_early(contract):
            usable = self._market.usable(contract.terms.node)
            digesting = [] if usable is None else [usable.number]
            self._market.note_digested(number, is_all=not await self._is_only_in(contract, later, digesting))
        return not is_needed and not self._market.expects(contract)

    def _is_early(self, contract: Contract) -> bool:
        """Whether it is paid for now, and has further windows."""
        until = paid_until(contract, self._escrows.now())
        return until is not None and until < contract.terms.end

    def _later(self, contract: Contract) -> list[int]:
        """Open ones with the same host."""
        others = self._contracts.of_host(contract.terms.node)
        return [each.number for each in others if each.state == "open" and each.terms.start > contract.terms.start]
