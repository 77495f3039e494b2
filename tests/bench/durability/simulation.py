"""The events: what happens to hosts, what the owner gets to know, and what it does, by the rules of `layrfs.policy`.

Events are of hosts, not of shards, and only hosts that hold a piece of the sample have any; the others are on or off by
chance when they are asked. The owner sees what its visits see: silence within an hour, missing pieces by its samples,
rot by its sweep. It never sees who is dead.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable

import msgspec

from layrfs.model.records import HostAddress, NodeRecord
from layrfs.model.redundancy import Redundancy
from layrfs.policy.auditing import DAY_SECONDS, LEAVES_PER_DAY, SWEEP_DAYS, VISIT_SECONDS
from layrfs.policy.patching import Repair, endangered, piece_state, repair
from layrfs.policy.placement import Limits, Wanted, choose_hosts
from layrfs.policy.trust import (
    GRACE_SECONDS,
    UNOBSERVED_SECONDS,
    after,
    doubt_seconds,
    silent_seconds,
    standing,
)
from tests.bench.durability.hosts import Host, Result, Shard, present_until
from tests.bench.durability.world import DAY, HOUR, YEAR, Line, World

SHARD_BYTES = float(4 << 20)
CANDIDATES = 20
NOWHERE = "127.0.0.1"
LOOK_SECONDS = UNOBSERVED_SECONDS - HOUR
RETRY_SECONDS = HOUR
PATCHED = frozenset({"soon", "now"})


class Simulation:
    """One network, one volume in it; `run` once."""

    def __init__(
        self,
        world: World,
        redundancy: Redundancy,
        *,
        shards: int,
        volume_bytes: float = float(1 << 40),
        line: Line | None = None,
        seed: int = 1,
        visit_seconds: float = VISIT_SECONDS,
    ) -> None:
        """``shards`` stand for the whole volume: each patch of one takes the line for as many as it stands for."""
        self._world, self._redundancy, self._line = world, redundancy, line or Line()
        self._visit_seconds = visit_seconds
        self._dice = random.Random(seed)
        self._weight = volume_bytes / SHARD_BYTES / shards
        self._piece_bytes = SHARD_BYTES / redundancy.needed
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._queue: list[tuple[int, int, Shard]] = []
        self._waiting: set[Shard] = set()
        self._order = itertools.count()
        self._identity = itertools.count(1)
        self._line_free = True
        self._now = 0.0
        self._down: set[int] = set()
        self._network = [self._newcomer(index) for index in range(world.hosts)]
        self._shards = [Shard() for _ in range(shards)]
        self.result = Result(redundancy)

    def run(self, years: float) -> Result:
        """Play so many years."""
        for shard in self._shards:
            self._place(shard, range(self._redundancy.total))
        self._at(self._gap(self._world.outages_per_subnet_year * self._world.subnets), self._outage)
        self._at(self._gap(self._world.rot_per_piece_year * self._pieces), self._rot)
        self._at(self._world.killed_every_seconds, self._kill)
        self._at(DAY, self._sample)
        end = years * YEAR
        while self._events and self._events[0][0] < end:
            self._now, _, handle, arguments = heapq.heappop(self._events)
            handle(*arguments)
        self.result.shard_years = len(self._shards) * years
        self.result.seconds = end
        return self.result

    @property
    def _pieces(self) -> int:
        return len(self._shards) * self._redundancy.total

    def _at(self, delay: float, handle: Callable[..., None], *arguments: object) -> None:
        if not math.isinf(delay):
            heapq.heappush(self._events, (self._now + delay, next(self._order), handle, arguments))

    def _gap(self, per_year: float) -> float:
        return self._dice.expovariate(per_year / YEAR) if per_year else math.inf

    # what hosts do

    def _newcomer(self, index: int) -> Host:
        number, subnet = next(self._identity), index % self._world.subnets
        block = 20 if self._world.public else 10
        address = f"{block + (subnet >> 16)}.{subnet >> 8 & 255}.{subnet & 255}.{1 + index // self._world.subnets}"
        public_key, offer = number.to_bytes(32, "big"), (4000, 4000, 1 << 60, 0)
        record = NodeRecord(public_key, address, *offer, leaving=False, version=1, expires=1 << 40, signature=bytes(64))
        return Host(record, self._world.kinds[number % len(self._world.kinds)], subnet)

    def _watch(self, host: Host, index: int) -> None:
        """It got its first piece: from now on it has events."""
        host.watched = True
        host.trust = msgspec.structs.replace(host.trust, asked_at=self._now)
        self._at(host.kind.session(self._dice, on=True), self._switch, host)
        self._at(host.kind.life(self._dice), self._die, host, index)

    def _switch(self, host: Host) -> None:
        if not host.alive:
            return
        host.session_on = not host.session_on
        self._at(host.kind.session(self._dice, on=host.session_on), self._switch, host)
        self._set_online(host)

    def _set_online(self, host: Host) -> None:
        online = host.alive and host.session_on and host.subnet not in self._down
        if online == host.online:
            return
        host.online = online
        host.since += 1
        if online:
            self._came_back(host)
        else:
            self._at(self._dice.random() * self._visit_seconds, self._look, host, host.since, self._now)

    def _die(self, host: Host, index: int) -> None:
        """For good, or without its disk."""
        if not host.alive:
            return
        if self._dice.random() < self._world.wiped:
            self._lose(host)
            self._at(DAY_SECONDS / LEAVES_PER_DAY, self._found_empty, host, list(host.held))
            self._at(host.kind.life(self._dice), self._die, host, index)
            return
        self._leave(host, index)

    def _kill(self) -> None:
        self._at(self._world.killed_every_seconds, self._kill)
        index = self._dice.randrange(self._world.hosts)
        self._leave(self._network[index], index)

    def _leave(self, host: Host, index: int) -> None:
        host.alive = False
        self._network[index] = self._newcomer(index)
        self._set_online(host)
        self._lose(host)

    def _lose(self, host: Host) -> None:
        for shard, position in list(host.held.items()):
            self._gone_for_good(shard, position)

    def _outage(self) -> None:
        self._at(self._gap(self._world.outages_per_subnet_year * self._world.subnets), self._outage)
        subnet = self._dice.randrange(self._world.subnets)
        final = self._dice.random() < self._world.final_outages
        if subnet in self._down:
            return
        self._down.add(subnet)
        self._at(self._dice.expovariate(1 / self._world.outage_seconds), self._outage_ends, subnet)
        for index in range(subnet, self._world.hosts, self._world.subnets):
            host = self._network[index]
            if host.watched and final:
                self._leave(host, index)
            elif host.watched:
                self._set_online(host)

    def _outage_ends(self, subnet: int) -> None:
        self._down.discard(subnet)
        for index in range(subnet, self._world.hosts, self._world.subnets):
            if self._network[index].watched:
                self._set_online(self._network[index])

    def _rot(self) -> None:
        self._at(self._gap(self._world.rot_per_piece_year * self._pieces), self._rot)
        shard = self._dice.choice(self._shards)
        position = self._dice.randrange(self._redundancy.total)
        if position in shard.there:
            host = shard.holders[position]
            self._at(self._dice.random() * SWEEP_DAYS * DAY, self._found_rotten, shard, position, host)
            self._gone_for_good(shard, position)

    def _gone_for_good(self, shard: Shard, position: int) -> None:
        shard.there.discard(position)
        if len(shard.there) < self._redundancy.needed and shard.holders:
            self.result.losses += 1
            self._replace(shard)

    def _replace(self, shard: Shard) -> None:
        """A lost shard is counted, and another takes its place in the sample."""
        for position in list(shard.holders):
            self._drop(shard, position)
        shard.there.clear()
        shard.life += 1
        shard.busy = False
        self._place(shard, range(self._redundancy.total))

    # what the owner gets to know

    def _look(self, host: Host, since: int, off_at: float) -> None:
        """A visit that finds nobody; the next one when that would change anything."""
        if host.since != since or not host.held:
            return
        if not host.trust.silent:
            host.trust = present_until(host.trust, off_at)
        host.trust = after(host.trust, "offline", self._now)
        self._judge(host)
        silence = silent_seconds(host.trust, self._now)
        if silence < GRACE_SECONDS:
            ends = [end - silence for end in (doubt_seconds(host.trust), GRACE_SECONDS) if end > silence]
            self._at(min([LOOK_SECONDS, *ends]) + 1.0, self._look, host, since, off_at)

    def _came_back(self, host: Host) -> None:
        if host.trust.silent:
            host.trust = after(host.trust, "passed", self._now)
            self._judge(host)
        if self._waiting:
            for shard in self._waiting.intersection(host.held):
                self._waiting.discard(shard)
                self._consider(shard)

    def _found_empty(self, host: Host, lost: list[Shard]) -> None:
        """Samples of a wiped host, one after the other, until it is excluded or has no more of what it lost."""
        lost = [shard for shard in lost if shard in host.held and host.held[shard] not in shard.there]
        if not lost or not host.alive:
            return
        if host.online:
            shard = lost.pop()
            host.trust = after(host.trust, "missing", self._now)
            self._drop(shard, host.held[shard])
            self._consider(shard)
            self._judge(host)
        if host.state != "gone":
            self._at(DAY_SECONDS / LEAVES_PER_DAY, self._found_empty, host, lost)

    def _found_rotten(self, shard: Shard, position: int, host: Host) -> None:
        if shard.holders.get(position) is not host or position in shard.there:
            return
        if not host.online:
            self._at(DAY, self._found_rotten, shard, position, host)
            return
        host.trust = after(present_until(host.trust, self._now), "missing", self._now)
        self._drop(shard, position)
        self._consider(shard)

    def _judge(self, host: Host) -> None:
        state = piece_state(host.trust, self._now)
        if state != host.state:
            host.state = state
            for shard in list(host.held):
                self._consider(shard)

    # what it does

    def _plan(self, shard: Shard) -> tuple[Repair, int]:
        pieces = {position: host.state for position, host in shard.holders.items()}
        return repair(self._redundancy, pieces), endangered(self._redundancy, pieces)

    def _consider(self, shard: Shard) -> None:
        plan, danger = self._plan(shard)
        if plan.urgency in PATCHED and plan.positions and not shard.busy:
            shard.queued = True
            heapq.heappush(self._queue, (danger, next(self._order), shard))
            self._next_patch()

    def _next_patch(self) -> None:
        unlimited = self._line.exponential_seconds is not None
        while self._queue and (self._line_free or unlimited):
            _, _, shard = heapq.heappop(self._queue)
            plan, _ = self._plan(shard)
            if shard.busy or not shard.queued or plan.urgency not in PATCHED or not plan.positions:
                continue
            shard.queued = False
            if self._readable(shard) < self._redundancy.needed:
                self._waiting.add(shard)
                continue
            self._line_free, shard.busy = unlimited, True
            read, written = self._redundancy.needed * self._piece_bytes, len(plan.positions) * self._piece_bytes
            seconds = self._line.seconds(self._dice, read * self._weight, written * self._weight)
            self.result.busy_seconds += seconds
            self._at(seconds, self._patched, shard, shard.life)

    def _patched(self, shard: Shard, life: int) -> None:
        self._line_free = True
        if shard.life == life:
            shard.busy = False
            plan, _ = self._plan(shard)
            if plan.urgency in PATCHED and self._readable(shard) >= self._redundancy.needed:
                self._carry_out(shard, plan)
        self._next_patch()

    def _carry_out(self, shard: Shard, plan: Repair) -> None:
        made = self._place(shard, plan.positions)
        if made:
            self.result.patches += 1
            self.result.made_anew += made
            self.result.read_bytes += self._redundancy.needed * self._piece_bytes
            self.result.written_bytes += made * self._piece_bytes
        if made < len(plan.positions):
            self._at(RETRY_SECONDS, self._consider, shard)
        else:
            self._consider(shard)

    def _readable(self, shard: Shard) -> int:
        return sum(shard.holders[position].online for position in shard.there)

    def _place(self, shard: Shard, positions: range | tuple[int, ...]) -> int:
        """New pieces by the placement rules, each replacing what is at its position; how many were placed."""
        already = [
            HostAddress(host.record.node_id, NOWHERE if position in positions else host.record.host, 4000)
            for position, host in shard.holders.items()
        ]
        by_identity: dict[bytes, int] = {}
        wanted = [Wanted(position, int(self._piece_bytes), self._candidates(by_identity)) for position in positions]
        chosen = choose_hosts(wanted, already=already, limits=Limits()).chosen
        for position, record in chosen.items():
            index = by_identity[record.public_key]
            host = self._network[index]
            if position in shard.holders:
                self._drop(shard, position)
            if not host.watched:
                self._watch(host, index)
            shard.holders[position] = host
            shard.there.add(position)
            host.held[shard] = position
        if len(chosen) < len(positions) and shard.life >= 0:
            self._at(RETRY_SECONDS, self._consider, shard)
        return len(chosen)

    def _candidates(self, by_identity: dict[bytes, int]) -> list[NodeRecord]:
        """Those nearest to a random key that answer now and are not suspended."""
        near = self._dice.sample(range(self._world.hosts), min(CANDIDATES, self._world.hosts))
        there = [index for index in near if self._answers(self._network[index])]
        by_identity.update((self._network[index].record.public_key, index) for index in there)
        return [self._network[index].record for index in there]

    def _answers(self, host: Host) -> bool:
        if host.subnet in self._down:
            return False
        if not host.watched:
            return self._dice.random() < host.kind.availability
        return host.online and standing(host.trust, self._now) in {"new", "good"}

    def _drop(self, shard: Shard, position: int) -> None:
        host = shard.holders.pop(position)
        shard.there.discard(position)
        host.held.pop(shard, None)

    def _sample(self) -> None:
        """Once a day: how many shards could be read at this moment."""
        self._at(DAY, self._sample)
        sample = self._dice.sample(self._shards, min(50, len(self._shards)))
        self.result.asked += len(sample)
        self.result.readable += sum(self._readable(shard) >= self._redundancy.needed for shard in sample)
