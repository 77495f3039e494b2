"""When which pieces are audited, what that finds and what it costs. Pure: time, dice and unit costs are arguments.

Two ways of choosing, because they find different things. *Samples* are drawn at random, each leaf of a host equally
likely, one leaf of each piece drawn: whoever has dropped a share f of what it holds, leaves here and there or whole
pieces, is found by s samples with probability 1 - (1 - f)^s, however it chose (459 for 1 % at 99 %). The *sweep* goes
through the pieces in order, so that the one piece that is gone is found as well, within `sweep_days`. *Retrievals*
fetch whole pieces, from hosts that prove what they do not hand out.

Invariant: no plan costs more than its budget. What does not fit is done less often.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from layrfs.ids import PieceId

DAY_SECONDS = 86_400.0
LEAVES_PER_DAY = 480
"""Samples of each host: 20 an hour, and more than the 459 that find 1 % with 99 % (formula above)."""

SWEEP_DAYS = 30.0
"""Each piece is proven once in so long. One that is gone unnoticed hurts when the others go: a daily sweep saves shards
of mirror:2, and with mirror:3 none was lost in either (docs/durability.md)."""

RETRIEVALS_PER_DAY = 2.0
"""Of each host: ten refusals suspend (policy.trust), so who hands out nothing is known within five days."""

VISIT_SECONDS = 3600.0
"""Hosts are visited so often; more seldom than ``trust.UNOBSERVED_SECONDS`` and time would go unobserved."""

MOST_CAUGHT_UP_SECONDS = DAY_SECONDS
"""After a pause of the owner's machine at most one day's work is made up for."""


class UnitCost(msgspec.Struct, frozen=True):
    """What one leaf costs whoever asks, in bytes on the wire and processor time; and a whole piece, per byte."""

    leaf_bytes: float
    leaf_cpu_seconds: float
    piece_bytes: float
    cpu_seconds_per_byte: float


MEASURED = UnitCost(leaf_bytes=17_500, leaf_cpu_seconds=0.005, piece_bytes=4 << 20, cpu_seconds_per_byte=4e-9)
"""`python -m tests.bench.durability --audits`: 16,877 bytes and 0.2 ms for a proof, here rounded up for the headers of
packets, and for what the auditor writes down and decides; 8 ms for a whole piece of 4 MiB."""


class Budget(msgspec.Struct, frozen=True):
    """All that auditing may use: one percent of a line of 10 Mbit/s, one percent of a core."""

    bytes_per_second: float = 12_500.0
    cpu_share: float = 0.01


DEFAULT_BUDGET = Budget()
SAMPLING_SHARE = 0.5
RETRIEVAL_SHARE = 0.2
"""What samples keep, and retrievals get at most, of a budget that is too small for all three."""


class Plan(msgspec.Struct, frozen=True):
    """For each host; all three follow from how many pieces the hosts hold."""

    leaves_per_day: float = float(LEAVES_PER_DAY)
    sweep_days: float = SWEEP_DAYS
    retrievals_per_day: float = RETRIEVALS_PER_DAY


class Load(msgspec.Struct, frozen=True):
    """What a plan uses, in all."""

    bytes_per_second: float
    cpu_share: float

    def share_of(self, budget: Budget) -> float:
        """1 when either is used up."""
        return max(self.bytes_per_second / budget.bytes_per_second, self.cpu_share / budget.cpu_share)


class Due(msgspec.Struct, frozen=True):
    """How many pieces of one host to draw at random, to take from the sweep, and to fetch whole."""

    samples: int
    swept: int
    retrievals: int


def detection_probability(missing_share: float, leaves: int) -> float:
    """That at least one of so many sampled leaves is among those missing."""
    return 1.0 - (1.0 - missing_share) ** leaves


def leaves_needed(missing_share: float, probability: float) -> int:
    """How many samples find a share that is missing with this probability."""
    return math.ceil(math.log(1.0 - probability) / math.log(1.0 - missing_share))


def plan(pieces: Sequence[int], unit: UnitCost = MEASURED, budget: Budget = DEFAULT_BUDGET) -> Plan:
    """For hosts that hold so many pieces each: the default, or as much of it as the budget allows."""
    if load(Plan(), pieces, unit).share_of(budget) <= 1:
        return Plan()
    fetching = _share(Plan(0, math.inf, RETRIEVALS_PER_DAY), pieces, unit, budget)
    sampling = _share(Plan(LEAVES_PER_DAY, math.inf, 0), pieces, unit, budget)
    sweeping = _share(Plan(0, SWEEP_DAYS, 0), pieces, unit, budget)
    fetched = min(fetching, RETRIEVAL_SHARE)
    sampled = min(sampling, max(SAMPLING_SHARE, 1 - fetched - sweeping))
    room = 1 - fetched - sampled
    return Plan(
        leaves_per_day=LEAVES_PER_DAY * (sampled / sampling),
        sweep_days=SWEEP_DAYS * (sweeping / room if sweeping > room else 1.0),
        retrievals_per_day=RETRIEVALS_PER_DAY * (fetched / fetching),
    )


def _share(plan: Plan, pieces: Sequence[int], unit: UnitCost, budget: Budget) -> float:
    return load(plan, pieces, unit).share_of(budget)


def load(plan: Plan, pieces: Sequence[int], unit: UnitCost = MEASURED) -> Load:
    """What a plan costs on average."""
    leaves = len(pieces) * plan.leaves_per_day + sum(pieces) / plan.sweep_days
    whole_bytes = len(pieces) * plan.retrievals_per_day * unit.piece_bytes
    return Load(
        bytes_per_second=(leaves * unit.leaf_bytes + whole_bytes) / DAY_SECONDS,
        cpu_share=(leaves * unit.leaf_cpu_seconds + whole_bytes * unit.cpu_seconds_per_byte) / DAY_SECONDS,
    )


def due(plan: Plan, pieces: int, elapsed_seconds: float, dice: float) -> Due:
    """For a host that holds so many pieces and was last visited so long ago; ``dice`` from 0 up to 1.

    Fractions are rounded up as often as they are large, so that many short visits come to the same as a long one.
    """
    days = min(MOST_CAUGHT_UP_SECONDS, max(0.0, elapsed_seconds)) / DAY_SECONDS
    if pieces == 0:
        return Due(0, 0, 0)
    return Due(
        samples=math.floor(days * plan.leaves_per_day + dice),
        swept=min(pieces, math.floor(days * pieces / plan.sweep_days + dice)),
        retrievals=math.floor(days * plan.retrievals_per_day + dice),
    )


def next_visit_seconds(jitter: float) -> float:
    """Until a host is visited again, an hour on average: no host knows when. ``jitter`` from 0 up to 1."""
    return VISIT_SECONDS * (0.5 + jitter)


def drawn(leaf_counts: Sequence[int], dice: Sequence[float]) -> list[int]:
    """The places of the pieces to sample: each of ``dice``, from 0 up to 1, draws one, by its number of leaves."""
    ends = list(accumulate(leaf_counts))
    return [bisect_right(ends, min(ends[-1] - 1, int(roll * ends[-1]))) for roll in dice] if ends else []


def swept(pieces: Sequence[PieceId], cursor: PieceId | None, count: int) -> list[PieceId]:
    """The next pieces of a host after the cursor, and round; ``pieces`` are sorted. The last is the new cursor.

    By id rather than by place, so that pieces that come and go in between make the sweep miss none.
    """
    start = bisect_right(pieces, cursor) if cursor is not None else 0
    return [pieces[(start + step) % len(pieces)] for step in range(min(count, len(pieces)))]
