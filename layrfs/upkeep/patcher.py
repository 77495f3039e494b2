"""Pieces that are gone are made anew on other hosts, the most endangered shards first.

Owns the order in which that is tried, and the order of one repair: the new piece is on a host; the row is replaced and
the old piece retired, in one transaction; hosts get a version that says so; the old piece is dropped from its host, if
that comes back. So a crash between any two steps costs garbage, and no piece is given up before its successor is
there. Must not know where pieces go, or what hosts are trusted.

Invariants: nobody else makes pieces of shards of files, and of one shard one at a time, so that no host gets two of
them; another machine that patches at the same time makes the same pieces, and what of it is recorded second is
retired. While no host can be reached, or another machine has taken over, nothing is patched.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
import trio

from layrfs import tempo
from layrfs.crashpoints import reached
from layrfs.errors import LayrError, Unavailable
from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.transfers import Slot, Transfers
from layrfs.policy.copies import within_reach
from layrfs.policy.patching import Urgency
from layrfs.policy.silence import Silence
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.tempo import lasting
from layrfs.upkeep.lost_shards import LostShards
from layrfs.upkeep.needs import Need, Needs

LOOK_SECONDS = 60.0
"""A look at least so often."""

DELAY_SECONDS: Mapping[Urgency, float] = {"lost": 0.0, "now": 0.0, "soon": 10.0, "later": 3600.0}
"""A loss seldom comes alone: what is made in one go is made from one fetch. ``later`` hopes for hosts that return.

When hosts have just come, what waits for them does not wait for anything else, unless it is for ``later``.
"""

RETRY_SECONDS: Mapping[Urgency, float] = {"lost": 3600.0, "now": 60.0, "soon": 60.0, "later": 3600.0}
"""What could not be made is tried again after so long, or when hosts appear."""

LONGEST_RETRY_SECONDS = 300.0
"""Twice as long each time that no host has taken anything at all, up to this: each try costs a fetch."""

SETTLE_SECONDS = 1.0
"""Between being told of a loss and looking: there may be a thousand."""

LOOK_SHARE = 20
"""Of its time it spends one part in so many with looking, however large the volume is."""

HANDS = 2
"""Shards patched at the same time: uploads and readers have the rest of the workers."""

MOST_DOUBLINGS = 8
"""Enough to come from any pause to the longest."""

FRUITLESS = 6
"""After so many shards in a row that no host took a piece of, the others are put off: each costs a fetch."""

BREAK_SECONDS = 30.0
"""A turn that takes longer gives way to another when there is news: something may hurry more."""

SMOOTHING = 0.1
_NEVER = float("-inf")

_log = logging.getLogger(__name__)


class VersionLog(Protocol):
    """``layrfs.history.publishing.Publisher``, or a fake."""

    @property
    def may_write(self) -> bool:
        """Whether what is changed here becomes a version of the volume."""
        ...

    @property
    def next_version(self) -> int:
        """The number of the first version that is sure to say what is changed now."""
        ...


class Mended(msgspec.Struct, frozen=True):
    """What came of one shard: the positions that were wanted, and pieces that were made; why not all, in words."""

    shard: int
    urgency: Urgency
    wanted: tuple[int, ...] = ()
    made: tuple[PieceRecord, ...] = ()
    problem: str = ""


class _Turn:
    """What is learned while one shard after the other is patched."""

    def __init__(self, room: Mapping[NodeId, int]) -> None:
        self._room = room
        self.silence = Silence()
        self.fruitless = 0
        self.began = trio.current_time()

    def nobody_takes(self, piece_bytes: int, holders: Collection[NodeId]) -> bool:
        """Whether hosts are known, and none that has room lacks a piece of the shard: to fetch it would be in vain."""
        takers = {host for host, free_bytes in self._room.items() if free_bytes >= piece_bytes}
        return bool(self._room) and takers <= set(holders)


class Patcher:
    """One volume's; ``run`` once."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        changes: ChangeLog,
        transfers: Transfers,
        log: VersionLog,
        needs: Needs,
        lost: LostShards,
        room: Callable[[], Mapping[NodeId, int]],
    ) -> None:
        """``room``: bytes for new pieces at every host that is known now."""
        self._catalog = catalog
        self._changes = changes
        self._transfers = transfers
        self._log = log
        self._needs = needs
        self._lost = lost
        self._room = room
        self._wake, self._hurry = trio.Event(), trio.Event()
        self._everything = False
        self._turn_ended = trio.Event()
        self._busy: dict[int, trio.Event] = {}
        self._first_seen: dict[int, float] = {}
        self._failed_at: dict[int, float] = {}
        self._put_off_at: dict[int, float] = {}
        """Shards that were not tried because others that were had shown that no host takes anything."""

        self._in_vain = 0
        """Turns in a row in which no host has taken anything."""

        self._hosts_at = 0.0
        self._queue: dict[int, Need] = {}
        self._hopeless: set[int] = set()
        """Shards that the last look found lost, or needed by nothing."""

        self.made_anew = 0
        """Pieces that were made, since the start."""

        self.shard_seconds = 0.0
        """How long one shard takes, lately."""

    # ------------------------------------------------------------------- telling

    def hosts_appeared(self) -> None:
        """Hosts have been found or come back: try now what waits for hosts."""
        self._forgive()
        self._hosts_at = tempo.current_time()
        self._hurry.set()
        self._wake.set()

    def piece_lost(self, shard: ShardId, piece: PieceId) -> bool:
        """A host says, or shows, that it has not a piece: another will get it. False when no such shard is known."""
        number = self._catalog.number_of(shard)
        if number is None:
            return False
        self._catalog.pieces.refute(number, piece)
        self._give_up(number, shard)
        self._wake.set()
        return True

    def piece_held(self, shard: ShardId, piece: PieceId) -> None:
        """A host has proven to have a piece, whatever was said of it."""
        number = self._catalog.number_of(shard)
        if number is not None and self._catalog.pieces.believe(number, piece):
            self._wake.set()

    def _give_up(self, number: int, shard: ShardId) -> None:
        """What hosts say they have not, once the shard can be read without it: a disk may only not be there yet.

        Until then it stays on record, to be asked for, and to be retired when its successor is there.
        """
        if not self._needs.is_readable(number):
            return
        for held in self._catalog.pieces.held([number]):
            for piece, host in (held.pieces[position] for position in held.refuted):
                if self._catalog.pieces.drop(shard, piece) is not None:
                    self._changes.retire([(piece, host)], self._log.next_version)

    @property
    def found(self) -> Mapping[int, Need]:
        """What the last look found and is not done, by shard, the most endangered first; at most ``needs.MOST``.

        While no host can be reached, what was found before.
        """
        return self._queue

    @property
    def waiting(self) -> int:
        """Shards that lack pieces, and as far as is known will be given them here when hosts take some."""
        return len(self._catalog.pieces.degraded - self._hopeless) if self._log.may_write else 0

    # -------------------------------------------------------------------- working

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        task_status.started()
        while True:
            with trio.move_on_after(lasting(self._pause())):
                await self._wake.wait()
            with trio.move_on_after(SETTLE_SECONDS):
                await self._hurry.wait()
            self._wake, self._hurry = trio.Event(), trio.Event()
            ended, self._turn_ended = self._turn_ended, trio.Event()
            everything, self._everything = self._everything, False
            with contextlib.suppress(LayrError):  # of the database, which says so itself
                await self._turn(everything=everything)
            ended.set()
            await self._rest()

    async def finish(self) -> None:
        """Return when every shard that lacks pieces was tried once more; it is tried even if the caller gives up."""
        if not self._log.may_write:
            return
        ended, self._everything = self._turn_ended, True
        self._forgive()
        self._hurry.set()
        self._wake.set()
        await ended.wait()

    async def plan(self, shards: Iterable[int] | None) -> list[Need]:
        """What would be done now, for some shards or all."""
        if shards is None:
            return [need for need in await self._needs.look() or [] if need.is_needed]
        found: list[Need] = []
        for shard in shards:
            found += self._needs.of([shard])
            await trio.lowlevel.checkpoint()
        return sorted(found)

    async def patch(self, needs: Sequence[Need], tell: Callable[[Mended], None]) -> None:
        """Do it now, however little it hurries; ``tell`` hears of every shard."""
        turn = _Turn(self._room())
        for need in needs:
            tell(await self._mend(need, turn))

    async def _turn(self, *, everything: bool) -> None:
        if not self._log.may_write:
            self._queue = {}  # another machine patches, and what it makes is not seen here
            return
        looked = await self._needs.look()
        if looked is None:
            return
        self._hopeless = {need.shard for need in looked if need.urgency == "lost" or not need.is_needed}
        found = [need for need in looked if need.is_needed]
        self._queue = {need.shard: need for need in found}
        now = tempo.current_time()
        self._first_seen = {need.shard: self._first_seen.get(need.shard, now) for need in found}
        self._failed_at = {shard: at for shard, at in self._failed_at.items() if shard in self._first_seen}
        self._put_off_at = {shard: at for shard, at in self._put_off_at.items() if shard in self._first_seen}
        await self._lost.are({need.shard for need in looked if need.urgency == "lost"})
        due = [need for need in found if everything or self._due(need) <= now]
        await self._carry_out(sorted(due, key=self._place_in_line))

    async def _carry_out(self, needs: Sequence[Need]) -> None:
        turn, hands = _Turn(self._room()), trio.CapacityLimiter(HANDS)
        made_before = self.made_anew

        async def mend(need: Need) -> None:
            try:
                mended = await self._mend(need, turn)
                if len(mended.made) < len(mended.wanted):
                    self._failed_at[need.shard] = tempo.current_time()
            except LayrError as error:  # of the database, which says so itself
                _log.info("shard %d stays degraded: %s", need.shard, error)
                self._failed_at[need.shard] = tempo.current_time()
            finally:
                hands.release_on_behalf_of(need)

        async with trio.open_nursery() as nursery:
            for done, need in enumerate(needs):
                await hands.acquire_on_behalf_of(need)
                if turn.fruitless >= FRUITLESS:
                    self._put_off_at |= dict.fromkeys((other.shard for other in needs[done:]), tempo.current_time())
                if turn.fruitless >= FRUITLESS or self._is_interrupted(turn):
                    break
                nursery.start_soon(mend, need)
        if self.made_anew > made_before:
            self._in_vain = 0
        elif turn.fruitless:
            self._in_vain += 1
        if silent := turn.silence.hosts:
            _log.info("%d hosts do not answer: shards that are only there stay degraded", len(silent))

    async def _mend(self, need: Need, turn: _Turn) -> Mended:
        """One shard, when nobody else is at it; what it needs may be something else by then."""
        while (busy := self._busy.get(need.shard)) is not None:
            await busy.wait()
        busy = self._busy[need.shard] = trio.Event()
        try:
            return await self._mend_alone(need.shard, turn)
        finally:
            del self._busy[need.shard]
            busy.set()

    async def _mend_alone(self, number: int, turn: _Turn) -> Mended:
        need = next(iter(self._needs.of([number])), None)
        if need is None or not need.positions:
            return Mended(number, "none" if need is None else need.urgency)
        self._give_up(number, self._catalog.shard(number).id)
        record, began = self._catalog.shard(number), trio.current_time()
        mended = Mended(number, need.urgency, need.positions)
        holders = [piece.host for piece in record.pieces]
        if turn.nobody_takes(record.redundancy.piece_bytes(record.sealed_bytes), holders):
            return msgspec.structs.replace(mended, problem="every host that is known has a piece of it, or no room")
        if not within_reach(record.redundancy.needed, holders, turn.silence.hosts):
            return msgspec.structs.replace(mended, problem="the hosts that have the others do not answer")
        try:
            made = await self._make(number, record, need)
        except LayrError as error:
            if isinstance(error, Unavailable):
                turn.silence.failed(holders)
            _log.info("shard %d stays degraded: %s", number, error)
            return msgspec.structs.replace(mended, problem=str(error))
        turn.silence.answered(holders)
        turn.fruitless = 0 if made else turn.fruitless + 1
        self._made(need, made, trio.current_time() - began)
        problem = "" if len(made) == len(need.positions) else "not enough hosts take pieces"
        return msgspec.structs.replace(mended, made=made, problem=problem)

    async def _make(self, number: int, record: ShardRecord, need: Need) -> tuple[PieceRecord, ...]:
        generation = self._catalog.pieces.next_generation(number)
        slots = [Slot(position, generation) for position in need.positions]
        made = await self._transfers.top_up(record, slots)
        reached("pieces made anew")
        if self._catalog.has_shard(number):
            retired = self._catalog.pieces.put(number, made)
        else:  # it was given up meanwhile
            retired = [(piece.id, piece.host) for piece in made]
        self._changes.retire(retired, self._log.next_version)
        reached("pieces replaced")
        return made

    def _made(self, need: Need, made: Sequence[PieceRecord], seconds: float) -> None:
        self.shard_seconds += SMOOTHING * (seconds - self.shard_seconds) if self.shard_seconds else seconds
        self.made_anew += len(made)
        if len(made) == len(need.positions):
            self._queue.pop(need.shard, None)

    # --------------------------------------------------------------------- timing

    def _due(self, need: Need) -> float:
        """When a shard is to be tried, on trio's clock."""
        first = self._first_seen[need.shard]
        if need.urgency != "soon" or first > self._hosts_at:
            first += DELAY_SECONDS[need.urgency]
        tried = max(self._failed_at.get(need.shard, _NEVER), self._put_off_at.get(need.shard, _NEVER))
        return max(first, tried + self._retry_seconds(need.urgency))

    def _retry_seconds(self, urgency: Urgency) -> float:
        shortest = RETRY_SECONDS[urgency]
        doublings = min(max(0, self._in_vain - 1), MOST_DOUBLINGS)
        return min(shortest * 2.0**doublings, max(shortest, LONGEST_RETRY_SECONDS))

    def _place_in_line(self, need: Need) -> tuple[int, float, int]:
        """Of equally endangered ones that first which was not tried, or longest ago: else some would never be."""
        return need.key, self._failed_at.get(need.shard, _NEVER), need.shard

    def _forgive(self) -> None:
        self._in_vain = 0
        self._failed_at.clear()
        self._put_off_at.clear()

    def _pause(self) -> float:
        now = tempo.current_time()
        due = min((self._due(need) for need in self._queue.values() if need.positions), default=now + LOOK_SECONDS)
        return min(LOOK_SECONDS, max(0.0, due - now))

    async def _rest(self) -> None:
        """Looking at much must not be all that happens; who waits for it is not kept waiting."""
        with trio.move_on_after(LOOK_SHARE * self._needs.look_seconds):
            await self._hurry.wait()

    def _is_interrupted(self, turn: _Turn) -> bool:
        return self._wake.is_set() and trio.current_time() - turn.began > BREAK_SECONDS
