"""``Market`` with money: who is paid for which piece, and what pieces are digested under.

Owns what is promised to hosts beyond what is recorded: pieces on their way. Must not know how contracts are made or
kept. Called for every piece: what is known is answered at once, from memory.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

import trio

from layrfs.crypto.wallet_keys import instalment_salt
from layrfs.errors import LedgerUnavailable, OwnerError, RemoteError, Unavailable, Unfunded
from layrfs.ids import NodeId, PieceId
from layrfs.model.contracts import paid_bytes
from layrfs.model.payables import PieceDigests, Salts
from layrfs.model.records import NodeRecord
from layrfs.model.shards import PieceRecord
from layrfs.policy.budgeting import Holding, fits
from layrfs.policy.earning import kept_until
from layrfs.policy.paymaster import (
    Contract,
    Uncovered,
    cost_of,
    first_open,
    has_credit,
    is_paid_on,
    paid_until,
    top_up,
    unclaimed,
)
from layrfs.policy.pricing import credit_bytes
from layrfs.storage.contracts import Contracts
from layrfs.storage.spending import SpendingLimits
from layrfs.upkeep.agreeing import Agreements
from layrfs.upkeep.escrows import Escrows

COVER_SECONDS = 20.0
"""As long as this a piece waits for others to be covered, when the host takes no more on credit."""

NO_CREDIT_SECONDS = 300.0
"""As long as this no other piece waits, when one did in vain and nothing was covered since."""

NO_FUNDS_SECONDS = 300.0
"""So long nobody asks the ledger for another piece whether the wallet has what it lacked."""

PROMISED_SECONDS = 900.0
"""After this a piece that did not arrive is not on its way any more."""

UNPAID_SECONDS = 5.0

_MOST_SALTS = 4096

_log = logging.getLogger(__name__)


class PaidMarket:
    """One volume's."""

    def __init__(
        self,
        *,
        contracts: Contracts,
        limits: SpendingLimits,
        agreements: Agreements,
        escrows: Escrows,
        salts_key: bytes,
        wake: Callable[[], None],
    ) -> None:
        """``wake``: there is a new contract, or much that none covers."""
        self._contracts = contracts
        self._limits = limits
        self._agreements = agreements
        self._escrows = escrows
        self._salts_key = salts_key
        self._wake = wake
        self._promised: defaultdict[int, dict[PieceId, tuple[int, float]]] = defaultdict(dict)
        self._waiting: dict[int, tuple[int, int]] = {}
        self._free: dict[int, int] = {}
        self._came_at: dict[int, float] = {}
        self._covered_at: dict[int, float] = {}
        self._in_vain_until: dict[int, float] = {}
        self._unpayable: dict[int, tuple[str, float]] = {}
        self._salts: dict[tuple[int, int], Salts] = {}
        self._covered = trio.Event()
        self._digested: set[int] = set()
        self._unpaid: frozenset[NodeId] = frozenset()
        self._unpaid_at = -math.inf
        self._counted: list[Holding] = []
        self._counted_at = -math.inf
        self._topping_up: defaultdict[int, trio.Lock] = defaultdict(trio.Lock)

    def highest_price(self) -> int:
        """See ``Market``, as for all that follow."""
        return self._limits.get().max_price or 0

    async def agree(self, host: NodeRecord, piece: PieceId, piece_bytes: int) -> Salts:
        contract = self.usable(host.node_id)
        if contract is None:
            await self._agreements.make(host.node_id)
            contract = self.usable(host.node_id)
            self._wake()
        if contract is None:
            raise Unavailable("There is no contract with the host.")
        await self._make_ready(contract)
        counted_bytes = paid_bytes(piece_bytes)
        self._check_budget(contract, counted_bytes)
        await self._have_credit(contract, counted_bytes)
        self._check_budget(contract, counted_bytes)  # others were promised something meanwhile
        self._promised[contract.number][piece] = (counted_bytes, trio.current_time())
        try:
            await self._have_funds(contract)
        except Unavailable:
            self._promised[contract.number].pop(piece, None)
            raise
        return self._salts_of(contract)

    def lacking(self, piece: PieceRecord) -> Salts | None:
        contract = self.usable(piece.host)
        if contract is None or self._contracts.knows(contract.number, piece.id):
            return None
        return self._salts_of(contract)

    def keep(self, digests: Iterable[PieceDigests]) -> None:
        digests = list(digests)
        self._contracts.keep(digests)
        for one in digests:
            was_promised = self._promised[one.contract].pop(one.piece, None) is not None
            if was_promised and one.contract in self._waiting:  # what was not, its host has had before
                pieces, stored_bytes = self._waiting[one.contract]
                self._waiting[one.contract] = pieces + 1, stored_bytes + one.piece_bytes
            self._came_at[one.contract] = trio.current_time()

    # ------------------------------------------------------------ for who pays

    def usable(self, host: NodeId) -> Contract | None:
        """The newest contract with a host that can take more."""
        now = self._escrows.now()
        found = [each for each in self._contracts.of_host(host) if first_open(each, now) is not None]
        return next((each for each in reversed(found) if self._escrows.is_here(each.terms)), None)

    def pays_on(self, host: NodeRecord) -> bool:
        """Whether what a host has is to be paid for: at the price of now, or as was agreed before that rose."""
        return 0 < host.price <= self.highest_price() or self.usable(host.node_id) is not None

    def unpaid(self, priced: Callable[[NodeId], bool]) -> frozenset[NodeId]:
        """Hosts that were paid, want to be (``priced``), and soon are not any more; as of some seconds ago.

        Nobody, before the ledger has said the time: by a clock that is wrong pieces would be moved away from all.
        """
        if not self._escrows.knows_time:
            return frozenset()
        if trio.current_time() >= self._unpaid_at + UNPAID_SECONDS:
            now = self._escrows.now()
            paid = {each.terms.node for each in self._contracts.live() if is_paid_on(each, now)}
            over = {each.terms.node for each in self._contracts.newest()} - paid
            self._unpaid, self._unpaid_at = frozenset(filter(priced, over)), trio.current_time()
        return self._unpaid

    def salts(self, contract: Contract, first: int) -> tuple[bytes, ...]:
        """Of the instalments from one on."""
        return self._salts_from(contract, first).salts

    def seconds_left(self, host: NodeId) -> float:
        """Until a contract ends whose pieces the newest one has to go on paying for; or when it has, until its host
        lets go of those; no end: there is none."""
        now, newest = self._escrows.now(), self.usable(host)
        if newest is None:
            return math.inf
        earlier = [terms for terms in self._contracts.came_to_be(host) if terms.start < newest.terms.start]
        ends = [terms.end if now < terms.end else kept_until(terms) for terms in earlier]
        return min((end - now for end in ends if end > now), default=math.inf)

    def to_cover(self, contract: Contract, limit: int) -> tuple[list[PieceDigests], int]:
        """Some of what could be covered now, and from when on it is to be paid for.

        What no other contract pays for comes first; then what one has paid for already, up to when it has.
        """
        fresh = self._contracts.payables(contract.number, limit, self._earlier(contract))
        handed_on = self._handed_on(contract)
        if fresh or not handed_on:
            return fresh, int(self._escrows.now())
        handed = self._contracts.payables(contract.number, limit, self._still_paid(contract))
        return handed, min(handed_on.values())

    def uncovered(self, contract: Contract) -> Uncovered:
        """What could be covered now."""
        pieces, stored_bytes = self._contracts.uncovered(contract.number, self._still_paid(contract))
        others = [each for each in self._contracts.of_host(contract.terms.node) if each.number != contract.number]
        return Uncovered(
            pieces,
            stored_bytes,
            quiet_seconds=trio.current_time() - self._came_at.get(contract.number, -math.inf),
            covered_seconds=trio.current_time() - self._covered_at.get(contract.number, -math.inf),
            is_waited_for=any(each.state in {"open", "settling"} for each in others),
        )

    def expects(self, contract: Contract) -> bool:
        """Whether pieces are on their way to the host."""
        return self._promised_bytes(contract.number) > 0

    def note_covered(self, contract: Contract, stroops: int) -> None:
        """A batch was agreed to, which takes so much of what is free."""
        self._covered_at[contract.number] = trio.current_time()
        if contract.number in self._free:
            self._free[contract.number] -= stroops
        self.note_less_waits(contract)

    def note_digested(self, number: int, *, is_all: bool) -> None:
        """Whether all that is needed of a contract is covered by later ones, or waits for that in the newest."""
        if is_all:
            self._digested.add(number)
        else:
            self._digested.discard(number)

    def note_less_waits(self, contract: Contract) -> None:
        """Pieces are covered, or given up: there may be credit again."""
        self._waiting.pop(contract.number, None)
        self._in_vain_until.pop(contract.number, None)
        self._covered.set()
        self._covered = trio.Event()

    async def have_funds_for(
        self, contract: Contract, pieces: Sequence[PieceDigests], now: float
    ) -> Sequence[PieceDigests]:
        """Returns when the escrow can pay for these pieces; the first of them, where the wallet has too little for all.

        ``now``: when the cover was begun, as asking takes time. Raises ``Unfunded``: for none; ``RemoteError``.
        """
        sums = list(accumulate(piece.piece_bytes for piece in pieces))
        async with self._topping_up[contract.number]:
            try:
                await self._fund(contract, sums[-1], now)
            except Unfunded:
                if some := pieces[: self._payable_sums(contract, sums, now)]:
                    return some
                raise
            return pieces

    def note_no_funds(self, contract: Contract) -> None:
        """The host does not see in the escrow what a cover needs."""
        self._free.pop(contract.number, None)

    def _payable_sums(self, contract: Contract, sums: Sequence[int], now: float) -> int:
        """How many of these numbers of bytes, each more than the one before, the escrow pays for as it is."""
        free = self._free.get(contract.number, 0)
        known = self._contracts.get(contract.number)
        return bisect_right(sums, free, key=lambda stored_bytes: cost_of(known, stored_bytes, now) or free + 1)

    async def _fund(self, contract: Contract, stored_bytes: int, now: float) -> None:
        number = contract.number
        wanted = cost_of(self._contracts.get(number), stored_bytes, now)
        if wanted is None:
            raise Unavailable("The contract with the host takes no more pieces.")
        if self._free.get(number, -1) < wanted:
            await self._see_free(number)
        if added := top_up(wanted, self._free[number], contract.terms):
            await self._escrows.top_up(contract.terms, added, least=wanted - self._free[number])
            await self._see_free(number)
        self._unpayable.pop(number, None)

    async def _see_free(self, number: int) -> None:
        """What is promised is looked up last: covers are agreed to while others wait, and while the ledger is asked."""
        held = await self._escrows.held(self._contracts.get(number).terms)
        self._free[number] = held.beyond(unclaimed(self._contracts.get(number)))

    # ------------------------------------------------------------------- steps

    def _earlier(self, contract: Contract) -> list[int]:
        """Other contracts with the host that pay for pieces now; one that the host broke does not."""
        now = self._escrows.now()
        others = [each for each in self._contracts.of_host(contract.terms.node) if each.state != "broken"]
        return [each.number for each in others if each.number != contract.number and now < each.terms.end]

    def _handed_on(self, contract: Contract) -> dict[int, int]:
        """Contracts whose pieces this one is to go on with, and until when they have paid for them."""
        now = self._escrows.now()
        others = self._contracts.of_host(contract.terms.node)
        earlier = [each for each in others if each.terms.start < contract.terms.start]
        found = {each: until for each in earlier if (until := paid_until(each, now)) is not None}
        is_whole = self._digested
        return {
            each.number: until for each, until in found.items() if until == each.terms.end or each.number in is_whole
        }

    def _still_paid(self, contract: Contract) -> list[int]:
        """Other contracts whose pieces are not to be covered yet, because they would be paid for twice."""
        handed_on = self._handed_on(contract)
        return [number for number in self._earlier(contract) if number not in handed_on]

    def _salts_of(self, contract: Contract) -> Salts:
        """Of more than are needed, before the ledger has said the time: what lacks one is not paid for that long."""
        first = first_open(contract, self._escrows.now() if self._escrows.knows_time else contract.terms.start)
        if first is None:
            raise Unavailable("The contract with the host takes no more pieces.")
        return self._salts_from(contract, first)

    def _salts_from(self, contract: Contract, first: int) -> Salts:
        key = contract.number, first
        if key not in self._salts:
            if len(self._salts) >= _MOST_SALTS:
                self._salts.clear()
            terms = contract.terms
            salts = (
                instalment_salt(self._salts_key, terms.escrow, instalment)
                for instalment in range(first, terms.instalments)
            )
            self._salts[key] = Salts(contract.number, first, tuple(salts))
        return self._salts[key]

    async def _make_ready(self, contract: Contract) -> None:
        if not self._agreements.is_ready(contract):
            try:
                await self._agreements.make_ready(contract)
            except RemoteError as error:
                raise Unavailable(f"The host does not go on with its contract: {error}") from error

    async def _have_credit(self, contract: Contract, piece_bytes: int) -> None:
        limit = credit_bytes(contract.terms)
        if 2 * (self._outstanding(contract) + piece_bytes) > limit and not self._is_in_vain(contract.number):
            self._wake()
        waits_until = trio.current_time() + COVER_SECONDS
        while not has_credit(contract, self._outstanding(contract) + piece_bytes):
            await self._is_covered(contract, waits_until)

    async def _is_covered(self, contract: Contract, waits_until: float) -> None:
        """Returns when anything was covered. Raises ``Unavailable``, for some time at once."""
        if not self._is_in_vain(contract.number):
            with trio.move_on_at(waits_until):
                await self._covered.wait()
                return
            self._in_vain_until[contract.number] = trio.current_time() + NO_CREDIT_SECONDS
        raise Unavailable("The host takes no more pieces before those it has are covered.")

    def _is_in_vain(self, number: int) -> bool:
        """Whether nothing could be covered or paid a moment ago, so that trying again helps no piece."""
        _why, until = self._unpayable.get(number, ("", -math.inf))
        return trio.current_time() < max(until, self._in_vain_until.get(number, -math.inf))

    def _check_budget(self, contract: Contract, piece_bytes: int) -> None:
        if (budget := self._limits.get().budget) is None:
            return
        on_its_way = {contract.number: piece_bytes}
        for number in list(self._promised):
            on_its_way[number] = on_its_way.get(number, 0) + self._promised_bytes(number)
        found = ((self._contracts.get(number).terms, stored_bytes) for number, stored_bytes in on_its_way.items())
        promised = [Holding(terms.node, terms.price, stored_bytes) for terms, stored_bytes in found]
        if not fits(budget, self._holdings(), promised):
            raise Unavailable("The budget for hosts is used up.")

    def _holdings(self) -> list[Holding]:
        """As of a second ago at most: it looks at all that waits for a cover."""
        if trio.current_time() >= self._counted_at + 1.0:
            self._counted, self._counted_at = self._agreements.holdings(), trio.current_time()
        return self._counted

    async def _have_funds(self, contract: Contract) -> None:
        outstanding = self._outstanding(contract)
        wanted = cost_of(contract, outstanding, self._escrows.now())
        if wanted is not None and self._free.get(contract.number, -1) >= wanted:
            return
        async with self._topping_up[contract.number]:
            self._check_payable(contract.number)
            try:
                await self._fund(contract, outstanding, self._escrows.now())
            except LedgerUnavailable as error:
                _log.debug("a host takes pieces on credit: %s", error)
                self._rest(contract.number, COVER_SECONDS)  # if there was too little before, nobody says there is more
            except (RemoteError, OwnerError) as error:
                self._unpayable[contract.number] = f"The host cannot be paid now: {error}", math.inf
                self._rest(contract.number, NO_FUNDS_SECONDS if isinstance(error, OwnerError) else COVER_SECONDS)
            self._check_payable(contract.number)

    def _rest(self, number: int, seconds: float) -> None:
        """Who could not be paid before is tried again after so long."""
        if number in self._unpayable:
            self._unpayable[number] = self._unpayable[number][0], trio.current_time() + seconds

    def _check_payable(self, number: int) -> None:
        why, until = self._unpayable.get(number, ("", -math.inf))
        if trio.current_time() < until:
            raise Unavailable(why)

    def _outstanding(self, contract: Contract) -> int:
        """Bytes that the host has, or is about to get, and no batch covers."""
        if contract.number not in self._waiting:
            self._waiting[contract.number] = self._contracts.uncovered(contract.number, self._earlier(contract))
        return self._waiting[contract.number][1] + self._promised_bytes(contract.number)

    def _promised_bytes(self, number: int) -> int:
        promised, since = self._promised[number], trio.current_time() - PROMISED_SECONDS
        for piece in [piece for piece, (_bytes, at) in promised.items() if at < since]:
            del promised[piece]
        return sum(piece_bytes for piece_bytes, _at in promised.values())
