"""Finding the network: seeds are asked until somebody answers, and again from time to time, for ever.

Owns the seeds and what is wrong with them, and where hosts were that were met in earlier runs: seeds go away as well.
Must not know routing or records beyond handing answers to the node.
Invariant: a seed that cannot be resolved, does not answer, or belongs to another network never stops the others.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from layrfs.errors import Unreachable
from layrfs.ids import NodeId
from layrfs.network.addresses import Address, resolve
from layrfs.network.exchange import CLOCK_WINDOW_SECONDS, Answer, Exchange
from layrfs.network.lookups import HARD_SECONDS, Peer
from layrfs.network.peers import Peers
from layrfs.network.routing import K
from layrfs.wire.datagrams import Hello, Ping, Pong

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
"""Between two rounds of asking seeds while there is no contact."""
SEEDS_AGAIN_SECONDS = 300.0
"""The same while there are contacts: how two halves of a network that share a seed find together."""
SEEDS_SOON_SECONDS = 10.0
"""The same while they do not fill a bucket: in a network of a few hosts, seeds may be the hosts that are missed."""
RESOLVE_SECONDS = 5.0
MOST_ENDPOINTS = 4
"""Addresses tried of one name."""
SEEDS_AT_ONCE = 8
MET_AT_A_TIME = 32
"""Of hosts met earlier, in each round; others in the next one, because nearly all of them may be gone."""
EXPLORED = 8
"""Nodes met for each bucket when joining: the table fills further as it is used."""

_log = logging.getLogger(__name__)


class Joiner(Protocol):
    """What joining needs of the node."""

    node_id: NodeId
    peers: Peers

    async def look_up(self, target: bytes, *, width: int = K) -> object:
        """Meet the nodes nearest to an id."""
        ...

    def answered_untrusted(self, peer: Peer, pong: Pong) -> bool:
        """Take in an answer."""
        ...


class Joining:
    """The seeds of one node."""

    def __init__(
        self,
        node: Joiner,
        exchange: Exchange,
        seeds: Sequence[Address],
        met: Sequence[Address],
        now: Callable[[], float],
    ) -> None:
        """``met``: where hosts were in earlier runs, the likeliest to be there first."""
        self._node = node
        self._exchange = exchange
        self._seeds = seeds
        self._met = deque(address for address in met if address not in seeds)
        self._now = now
        self._own: set[Address] = set()
        self._problems: dict[Address, str] = {}
        self._limit = trio.CapacityLimiter(SEEDS_AT_ONCE)
        self.joined = trio.Event()

    @property
    def problem(self) -> str | None:
        """What is wrong with the first seed that something is wrong with."""
        return next(iter(self._problems.values()), None)

    async def join_forever(self) -> None:
        """Ask seeds, explore from there when that brought somebody or is long ago, rest, again."""
        pause, explored_at, table = FIRST_PAUSE_SECONDS, float("-inf"), self._node.peers.table
        while True:
            known = len(table)
            await self._greet_seeds()
            if self._has_contacts():
                if len(table) > known or trio.current_time() >= explored_at + SEEDS_AGAIN_SECONDS:
                    await self._explore(thoroughly=not known)
                    explored_at = trio.current_time()
                await self._greet_all(self._next_met())
                pause = FIRST_PAUSE_SECONDS
                await self._rest(SEEDS_SOON_SECONDS if len(table) < K else SEEDS_AGAIN_SECONDS)
            else:
                await self._rest(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _has_contacts(self) -> bool:
        return len(self._node.peers.table) > 0

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not on when the first contact has come or the last one gone."""
        had_contacts = self._has_contacts()
        until = trio.current_time() + seconds
        while trio.current_time() < until and self._has_contacts() == had_contacts:  # noqa: ASYNC110 - twice a second
            await trio.sleep(min(FIRST_PAUSE_SECONDS, seconds))

    async def _explore(self, *, thoroughly: bool) -> None:
        """Make ourselves known to our neighbours; when new here, meet some of everybody else too."""
        began = trio.current_time()
        await self._node.look_up(self._node.node_id)
        if not self.joined.is_set():
            _log.info("joined the network: %d nodes known", len(self._node.peers.table))
            self.joined.set()
        if thoroughly:
            for target in self._node.peers.table.neglected(began):
                await self._node.look_up(target, width=EXPLORED)

    async def _greet_seeds(self) -> None:
        """Who was merely met is asked when no seed is there, until one of them is: most may be gone."""
        await self._greet_all(self._seeds)
        if not self._has_contacts():
            await self._greet_all(self._next_met(), one_is_enough=True)
        if not self._has_contacts() and not self._problems:
            self.joined.set()  # all seeds are ourselves, or there are none: this node is the network

    async def _greet_all(self, addresses: Sequence[Address], *, one_is_enough: bool = False) -> None:
        async def greet(address: Address) -> None:
            await self._greet(address)
            if one_is_enough and self._has_contacts():
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for address in addresses:
                nursery.start_soon(greet, address)

    def _next_met(self) -> list[Address]:
        """Those whose turn it is."""
        turn = list(self._met)[:MET_AT_A_TIME]
        self._met.rotate(-len(turn))
        return turn

    async def _greet(self, seed: Address) -> None:
        """Ask all endpoints of a seed at once; one good answer is enough."""
        async with self._limit:
            try:
                with trio.fail_after(RESOLVE_SECONDS):
                    endpoints = await resolve(seed)
            except (Unreachable, trio.TooSlowError):
                self._note(seed, f"the name of seed {seed} cannot be resolved")
                return
            findings: list[str | None] = []

            async def greet_endpoint(endpoint: Address) -> None:
                findings.append(await self._finding(seed, endpoint))

            async with trio.open_nursery() as nursery:
                for endpoint in endpoints[:MOST_ENDPOINTS]:
                    nursery.start_soon(greet_endpoint, endpoint)
            self._note(seed, None if None in findings else findings[0])

    async def _finding(self, seed: Address, endpoint: Address) -> str | None:
        """What is wrong with one endpoint of a seed; None when it answered as it should."""
        if endpoint in self._own or self._node.peers.table.knows_address(endpoint):
            return None
        answer = await self._ask(endpoint, Ping())
        if answer is None:
            return await self._reason(seed, endpoint) if seed in self._seeds else f"{seed} does not answer"
        if answer.node_id == self._node.node_id:
            self._own.add(endpoint)
            return None
        if self._node.answered_untrusted(Peer(answer.node_id, endpoint), answer.message):
            return None
        return f"seed {seed} answers, but is not a host others can reach"

    async def _reason(self, seed: Address, endpoint: Address) -> str:
        """A seed that ignores our ping may still say hello, and thereby what is wrong."""
        answer = await self._ask(endpoint, Hello())
        if answer is None:
            return f"seed {seed} does not answer"
        if not self._exchange.is_ours(answer):
            return f"seed {seed} belongs to another network"
        minutes = abs(answer.time_ms / 1000 - self._now()) / 60
        if 60 * minutes > CLOCK_WINDOW_SECONDS:
            return f"the clock of this machine, or of seed {seed}, is wrong by {minutes:.0f} minutes"
        return f"seed {seed} answers, but only now and then"

    async def _ask(self, endpoint: Address, request: Ping | Hello) -> Answer[Pong] | None:
        with trio.move_on_after(HARD_SECONDS):
            return await self._exchange.ask(endpoint, request, Pong)
        return None

    def _note(self, seed: Address, problem: str | None) -> None:
        """Remember what is wrong with a seed, log it once. Of who was merely met nobody expects anything."""
        if seed not in self._seeds:
            return
        if problem is None:
            self._problems.pop(seed, None)
        elif self._problems.get(seed) != problem:
            self._problems[seed] = problem
            _log.warning("%s", problem)
