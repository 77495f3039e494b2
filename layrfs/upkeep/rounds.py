"""Every host is visited about hourly and asked for what is due of it, day and night, while the drive runs.

Owns when which host is visited, and over restarts how far its rounds are. How many pieces are due, and which, is
``policy.auditing``'s; what follows from an answer ``auditor``'s. Must not know how a host is asked.

Invariants: at most ``VISITS_AT_ONCE`` hosts are asked at a time, each for one piece at a time and with a pause after
it, so that nobody who uploads or reads notices; a host that is silent or says no is left alone until its next visit;
a piece of which nothing can be known keeps no other from being asked for.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

import trio

from layrfs import tempo
from layrfs.errors import LayrError
from layrfs.ids import NodeId, PieceId
from layrfs.model.audits import Level
from layrfs.policy.auditing import DAY_SECONDS, VISIT_SECONDS, Plan, drawn, due, next_visit_seconds, plan, swept
from layrfs.policy.trust import SHORTEST_DOUBT_SECONDS, Outcome
from layrfs.storage.audits import Owed, Round, Rounds
from layrfs.storage.trust import Trusts
from layrfs.upkeep.auditor import LOST, Auditor
from layrfs.upkeep.challenging import SILENT
from layrfs.upkeep.holdings import Holdings

VISITS_AT_ONCE = 2
PAUSE_SECONDS = 1.0
"""After each piece: two hosts at once are a sixth of a line of 2 Mbit/s, for some seconds an hour."""

LONGEST_VISIT_SECONDS = 900.0
FIRST_SECONDS = 30.0
LOOK_SECONDS = 5.0
"""How often it is looked who is due."""

RECOUNT_SECONDS = 60.0
"""Counting takes a thread 50 ms for a million pieces."""

CAUGHT_SECONDS = 60.0
"""Until who has lost something is asked again, as if for a whole day: one piece seldom goes alone."""

BACK_SECONDS = 30.0
"""A silent host that the network sees again is visited at once, but not more often than this."""

VANISHED_SECONDS = SHORTEST_DOUBT_SECONDS
"""One that the network does not see any more as well; it is merely a hint where there are many hosts."""

ENDING: frozenset[Outcome] = SILENT | {"refused"}
"""Outcomes after which a host is left alone until its next visit: more questions would tell nothing new."""

MOST_UNKNOWN = 3
"""So many pieces of which nothing is known after all end a visit: each may have cost a whole fetch."""

_log = logging.getLogger(__name__)
_dice = secrets.SystemRandom().random


class Ask(NamedTuple):
    """One piece to ask for; ``of_sweep``: it is the sweep's turn, not chance."""

    owed: Owed
    level: Level
    of_sweep: bool


class AuditRounds:
    """One volume's; ``run`` once."""

    def __init__(
        self,
        *,
        rounds: Rounds,
        holdings: Holdings,
        trusts: Trusts,
        auditor: Auditor,
        living_hosts: Callable[[], Collection[NodeId]],
        now: Callable[[], float] = tempo.now_seconds,
        dice: Callable[[], float] = _dice,
    ) -> None:
        """``living_hosts``: whom the network sees now. ``dice``: from 0 up to 1, and no host must foresee them."""
        self._rounds = rounds
        self._holdings = holdings
        self._trusts = trusts
        self._auditor = auditor
        self._living_hosts = living_hosts
        self._now = now
        self._dice = dice
        self._counts: dict[NodeId, int] = {}
        self._counted_at = float("-inf")
        self._visited_at: dict[NodeId, float] = {}
        self._next_at: dict[NodeId, float] = {}
        self._caught: set[NodeId] = set()
        self._unknown: set[NodeId] = set()
        self._visiting: set[NodeId] = set()
        self._visit_ended = trio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        await tempo.sleep(FIRST_SECONDS)
        async with trio.open_nursery() as nursery:
            while True:
                self._visit_ended = trio.Event()
                due = await self._due()
                for host in due[: VISITS_AT_ONCE - len(self._visiting)]:
                    self._visiting.add(host)
                    nursery.start_soon(self._visit_one_of, host)
                with trio.move_on_after(tempo.lasting(LOOK_SECONDS)):
                    await self._visit_ended.wait()

    async def _due(self) -> list[NodeId]:
        """Hosts whose visit is due: those that were caught first, then those that have waited longest."""
        now, living = tempo.current_time(), set(self._living_hosts())
        if now >= self._counted_at + RECOUNT_SECONDS:
            await self._count()
            self._counted_at = now
        due_at = {
            host: self._due_at(host, is_living=host in living) for host in self._counts if host not in self._visiting
        }
        hosts = [host for host, at in due_at.items() if at <= now]
        return sorted(hosts, key=lambda host: (host not in self._caught, due_at[host]))

    async def _count(self) -> None:
        try:
            self._counts = await self._holdings.counts()
        except LayrError as error:
            _log.warning("who has how many pieces is not known: %s", error)

    def _due_at(self, host: NodeId, *, is_living: bool) -> float:
        """Earlier when the network sees it again, or does not see it any more."""
        next_at = self._next_at.get(host, float("-inf"))
        if self._trusts.get(host).silent != is_living or host in self._unknown:
            return next_at
        soon = self._visited_at.get(host, float("-inf")) + (BACK_SECONDS if is_living else VANISHED_SECONDS)
        return min(next_at, soon)

    async def _visit_one_of(self, host: NodeId) -> None:
        try:
            await self._visit_in_time(host)
        except LayrError as error:
            _log.warning("host %s is audited later: %s", host.hex()[:12], error)
        now = tempo.current_time()
        self._visited_at[host] = now
        pause_seconds = CAUGHT_SECONDS if host in self._caught else next_visit_seconds(self._dice())
        self._next_at[host] = now + pause_seconds
        self._visiting.discard(host)
        self._visit_ended.set()

    async def _visit_in_time(self, host: NodeId) -> None:
        """What a slow host was not asked for in the time of a visit is not made up for: it would be so for ever."""
        began = self._now()
        with trio.move_on_after(LONGEST_VISIT_SECONDS) as scope:
            await self.visit(host)
        if scope.cancelled_caught:
            last = self._rounds.of(host)
            self._rounds.end(host, Round(int(began), None if last is None else last.cursor))

    async def visit(self, host: NodeId) -> None:
        """Ask a host for what is due of it. Raises ``LocalError``, ``CorruptFile``."""
        if self._trusts.get(host).silent and not await self._answers_again(host):
            return
        began, last = self._now(), self._rounds.of(host)
        was_caught = host in self._caught
        self._caught.discard(host)
        self._unknown.discard(host)
        elapsed_seconds = DAY_SECONDS if was_caught else _elapsed_seconds(last, began)
        cursor = None if last is None else last.cursor
        choose = partial(self._choose, elapsed_seconds=elapsed_seconds, cursor=cursor)
        unknown: set[PieceId] = set()
        for ask in await self._holdings.chosen(host, choose):
            await trio.lowlevel.checkpoint()
            held = self._holdings.held(host, ask.owed)
            is_old = held is not None and self._auditor.is_known_to_be_lost(held)
            if held is None or ((is_old or ask.owed.piece in unknown) and not ask.of_sweep):
                continue
            result = await self._auditor.ask(held, ask.level)
            outcome = None if result is None else result.outcome
            if outcome in LOST and not is_old:
                self._note_caught(host)
            if outcome in ENDING:
                return
            if ask.of_sweep:
                cursor = ask.owed.piece
                self._rounds.end(host, Round(int(began) if last is None else last.visited, cursor))
            if outcome == "unknown":
                unknown.add(ask.owed.piece)
            if len(unknown) >= MOST_UNKNOWN:
                self._unknown.add(host)
                break
            await tempo.sleep(PAUSE_SECONDS)
        self._rounds.end(host, Round(int(began), cursor))

    def _note_caught(self, host: NodeId) -> None:
        """Who is excluded anyway need not be caught again."""
        if self._trusts.standing(host) != "excluded":
            self._caught.add(host)

    async def _answers_again(self, host: NodeId) -> bool:
        """Whether it says anything about one piece; all are looked through for those only who are there."""
        held = self._holdings.any_of(host)
        result = None if held is None else await self._auditor.ask(held, "prove")
        return result is None or result.outcome not in ENDING

    def _choose(self, owed: Sequence[Owed], *, elapsed_seconds: float, cursor: PieceId | None) -> list[Ask]:
        """What to ask for, in this order; at least one piece, which tells whether the host is there. In a thread."""
        planned = plan(list(self._counts.values())) if self._counts else Plan()
        todo = due(planned, len(owed), elapsed_seconds, self._dice())
        leaves = [one.leaves for one in owed]
        by_id = {one.piece: one for one in owed}
        samples = drawn(leaves, [self._dice() for _ in range(max(1, todo.samples))])
        whole = drawn(leaves, [self._dice() for _ in range(todo.retrievals)])
        turns = swept([one.piece for one in owed], cursor, todo.swept)
        return [
            *(Ask(owed[place], "prove", of_sweep=False) for place in samples),
            *(Ask(owed[place], "deep", of_sweep=False) for place in whole),
            *(Ask(by_id[piece], "prove", of_sweep=True) for piece in turns),
        ]


def _elapsed_seconds(last: Round | None, now_seconds: float) -> float:
    """Since the last visit. A clock that was ahead then must not mean years without a visit."""
    return VISIT_SECONDS if last is None or last.visited > now_seconds else now_seconds - last.visited
