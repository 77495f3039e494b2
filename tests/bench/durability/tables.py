"""What is asked of the simulation, as tables: rows of text, and points for a plot."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from layrfs.model.redundancy import Redundancy
from layrfs.policy.auditing import LEAVES_PER_DAY, MEASURED, UnitCost, detection_probability, load, plan
from layrfs.policy.patching import Urgency, patch_below
from layrfs.policy.patching import critical as at_once
from layrfs.policy.trust import GRACE_SECONDS, SHORTEST_DOUBT_SECONDS
from tests.bench.durability.formula import losses_per_shard_year
from tests.bench.durability.hosts import Result
from tests.bench.durability.plot import Point
from tests.bench.durability.rules import rules
from tests.bench.durability.simulation import SHARD_BYTES, Simulation
from tests.bench.durability.world import DAY, FICKLE, HOME, HOUR, POPULATIONS, YEAR, Kind, Line, World

MIRRORS = (Redundancy(1, 2), Redundancy(1, 3), Redundancy(1, 4))
CODES = (Redundancy(2, 4), Redundancy(4, 8), Redundancy(4, 12), Redundancy(10, 20))
MIRROR3, RS48 = MIRRORS[1], CODES[1]
PATCH_SECONDS = 2 * HOUR
"""What a patch takes here between its turn and its end, about: for the formula only."""

CHURN_TEMPO, CHURN_RUNS, CHURN_SHARDS, CHURN_LINE = 100, 5, 200, float(50 << 20)
CHURN_GAP = 10.0 * CHURN_TEMPO

RESULT_HEADER = (
    "lost per shard-year",
    "patches per shard-year",
    "pieces made anew per shard-year",
    "read + written per stored byte and year",
    "line busy",
    "readable at any moment",
)


@dataclass(slots=True)
class Table:
    """One question and its answer."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def markdown(self) -> str:
        """As in docs/durability.md."""
        lines = [f"### {self.title}", "", "| " + " | ".join(self.header) + " |", "|" + "---|" * len(self.header)]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows)])


@dataclass(frozen=True, slots=True)
class Size:
    """How much is played: more of it finds rarer losses."""

    shards: int
    years: float
    seed: int = 1


def by_redundancy(size: Size) -> Iterator[Table]:
    """Loss, traffic and overhead of each redundancy among 1,000 hosts of each kind."""
    for name, kinds in POPULATIONS.items():
        gibibytes = 100 if kinds == (FICKLE,) else 1024
        table = Table(
            f"1,000 hosts: {name}, {gibibytes} GiB", ("redundancy", "stored per byte", "formula", *RESULT_HEADER)
        )
        life = kinds[0].life_seconds
        for redundancy in (*MIRRORS, *CODES):
            result = played(World(1000, kinds), redundancy, size, gibibytes=gibibytes)
            formula = by_formula(redundancy, life)
            overhead = redundancy.total / redundancy.needed
            table.rows.append((str(redundancy), f"{overhead:g}", f"{formula:.1e}", *described(result)))
            table.points.append(Point(f"formula: {life / DAY:.0f} days", overhead, formula, str(redundancy)))
            if result.losses:
                table.points.append(Point(name, overhead, rate(result), str(redundancy)))
        yield table


def by_grace(size: Size) -> Iterator[Table]:
    """How long silence is forgiven."""
    for name, redundancy, gibibytes in (
        ("home", MIRROR3, 1024),
        ("mixed", MIRROR3, 1024),
        ("mixed", RS48, 1024),
        ("fickle servers", MIRROR3, 100),
    ):
        table = Table(f"Grace for silence: {redundancy}, {name}", ("grace", *RESULT_HEADER))
        for hours in (24, 72, 168, 336):
            with rules(GRACE_SECONDS=hours * HOUR):
                result = played(World(1000, POPULATIONS[name]), redundancy, size, gibibytes=gibibytes)
            table.rows.append((f"{hours} h", *described(result)))
        yield table


def by_margin(size: Size) -> Iterator[Table]:
    """How early coded shards are patched: what it costs in the usual world, what it loses in one that is worse."""
    for name, gibibytes in (("mixed", 1024), ("fickle servers", 100)):
        for redundancy in (RS48, CODES[3]):
            table = Table(f"When to patch: {redundancy}, {name}", ("may be missing", "at once with", *RESULT_HEADER))
            for patient, critical in ((1000, 1000), (1000, 4), (8, 4), (4, 4), (2, 4)):
                with rules(PATIENT_SHARE=patient, CRITICAL_SHARE=critical):
                    waits = (str(redundancy.total - patch_below(redundancy)), f"{at_once(redundancy)} good")
                    world = World(1000, POPULATIONS[name])
                    result = played(world, redundancy, size, gibibytes=gibibytes)
                if not table.rows or waits != tuple(table.rows[-1][:2]):
                    table.rows.append((*waits, *described(result)))
            yield table


def by_line(size: Size) -> Iterator[Table]:
    """How quick the line is that a tebibyte is patched over."""
    table = Table("The line: 1 TiB, mirror:3, home", ("half of a line of", *RESULT_HEADER))
    for megabits in (4, 10, 50):
        line = Line(megabits * 1e6 / 16, 5 * megabits * 1e6 / 16)
        result = played(World(1000, (HOME,)), MIRROR3, size, line)
        table.rows.append((f"{megabits} Mbit/s up, {5 * megabits} down", *described(result)))
    yield table


def by_outages(size: Size) -> Iterator[Table]:
    """Networks that go down as a whole, and the rule that none gets two pieces of a shard."""
    table = Table("Whole networks: mirror:3, servers, 100 GiB", ("outages", *RESULT_HEADER))
    quiet = World(1000, POPULATIONS["servers"], outages_per_subnet_year=0)
    worlds = {
        "none": quiet,
        "subnets of 8, one in 50 final": replace(quiet, outages_per_subnet_year=1),
        "subnets of 100, one in 5 final": replace(
            quiet, hosts_per_subnet=100, outages_per_subnet_year=1, final_outages=0.2
        ),
        "the same, but nobody knows who shares one": replace(
            quiet, hosts_per_subnet=100, outages_per_subnet_year=1, final_outages=0.2, public=False
        ),
    }
    for name, world in worlds.items():
        table.rows.append((name, *described(played(world, MIRROR3, size, gibibytes=100))))
    yield table


def by_sweep(size: Size) -> Iterator[Table]:
    """How often each piece is proven, when as many as one in ten rots in a year."""
    table = Table(
        "The sweep: servers, 100 GiB, 10 % of pieces rot in a year", ("each piece once in", "", *RESULT_HEADER)
    )
    world = World(1000, POPULATIONS["servers"], rot_per_piece_year=0.1)
    for redundancy in MIRRORS[:2]:
        for days in (1, 30, 90):
            with rules(SWEEP_DAYS=days):
                result = played(world, redundancy, size, gibibytes=100)
            table.rows.append((f"{days} days", str(redundancy), *described(result)))
    yield table


def by_size(size: Size) -> Iterator[Table]:
    """Larger networks, for the same shards: there is one host for each piece."""
    table = Table("Size of the network: mixed", ("hosts", "redundancy", *RESULT_HEADER))
    for hosts in (1000, 10_000, 100_000):
        for redundancy in (MIRROR3, RS48):
            few = replace(size, shards=size.shards // 2)
            result = played(World(hosts, POPULATIONS["mixed"]), redundancy, few)
            table.rows.append((f"{hosts:,}", str(redundancy), *described(result)))
    yield table


def small_networks(size: Size) -> Iterator[Table]:
    """A few friends, each with a network of their own; many such circles."""
    for name in ("home", "mixed"):
        table = Table(f"A few friends: {name}, 100 GiB", ("hosts", "redundancy", *RESULT_HEADER))
        for hosts in (3, 5, 10):
            for redundancy in (*MIRRORS, CODES[0]):
                if redundancy.total <= hosts:
                    table.rows.append(
                        (str(hosts), str(redundancy), *described(_circles(name, hosts, redundancy, size)))
                    )
        yield table


def _circles(name: str, hosts: int, redundancy: Redundancy, size: Size) -> Result:
    """In each the shards share their fate, so there are many circles and few shards."""
    total = Result(redundancy)
    world = World(hosts, POPULATIONS[name], hosts_per_subnet=1)
    for circle in range(max(4, size.shards // 5)):
        total.add(
            Simulation(world, redundancy, shards=5, volume_bytes=100 * 2.0**30, seed=size.seed * 10_000 + circle).run(
                size.years
            )
        )
    return total


def churn(size: Size) -> Iterator[Table]:
    """What `tests.reliability.churn` does with real processes: 20 hosts, every 10 s one is killed for good, 10 minutes.

    In seconds of its upkeep, which goes a hundred times as fast. At an even pace there is time to patch between two
    deaths; at a random one three may come together.
    """
    table = Table(
        "20 hosts, every ten seconds one is replaced by an empty one, ten minutes, 200 shards",
        ("redundancy", "pace", "noticed within", "doubted after", "given up after", "lost", "pieces made anew"),
    )
    line = Line(CHURN_LINE / CHURN_TEMPO, CHURN_LINE / CHURN_TEMPO)
    for redundancy in (MIRROR3, RS48):
        for pace, noticed, doubt, grace in (
            ("even", 6.0, 3.0, 10.0),
            ("random", 6.0, 3.0, 10.0),
            ("random", 1.0, 0.1, 10.0),
            ("random", 1.0, 0.1, 1.0),
        ):
            waits = [seconds * CHURN_TEMPO for seconds in (noticed, doubt, grace)]
            runs = [_churned(pace, redundancy, line, *waits, size.seed + run) for run in range(CHURN_RUNS)]
            lost, made = (sum(counts) / CHURN_RUNS for counts in zip(*runs, strict=True))
            words = (f"{seconds:g} s" for seconds in (noticed, doubt, grace))
            table.rows.append((str(redundancy), pace, *words, f"{lost:.1f}", f"{made:.0f}"))
    yield table


def _churned(
    pace: str, redundancy: Redundancy, line: Line, noticed: float, doubt: float, grace: float, seed: int
) -> tuple[int, int]:
    """Losses, and pieces made anew."""
    steady = Kind("steady", math.inf, HOUR, 1e15 if pace == "even" else 20 * CHURN_GAP, 1.0)
    world = World(20, (steady,), 1, outages_per_subnet_year=0, wiped=0, rot_per_piece_year=0)
    if pace == "even":
        world = replace(world, killed_every_seconds=CHURN_GAP)
    with rules(GRACE_SECONDS=grace, SHORTEST_DOUBT_SECONDS=doubt):
        run = Simulation(
            world,
            redundancy,
            shards=CHURN_SHARDS,
            volume_bytes=CHURN_SHARDS * SHARD_BYTES / 2,
            line=line,
            visit_seconds=noticed,
            seed=seed,
        )
        result = run.run(600 * CHURN_TEMPO / YEAR)
    return result.losses, result.made_anew


def budget(unit: UnitCost = MEASURED) -> Iterator[Table]:
    """What auditing a volume costs by default, of a line of 10 Mbit/s and of one core."""
    table = Table(
        f"Auditing: {unit.leaf_bytes:,.0f} bytes and {unit.leaf_cpu_seconds * 1e3:.2f} ms for each leaf",
        ("volume", "hosts", "pieces per host", "samples per host and day", "finds 1 %", "sweep", "line", "core"),
    )
    for tebibytes, hosts, redundancy in (
        (0.1, 5, MIRROR3),
        (1, 20, MIRROR3),
        (1, 20, RS48),
        (1, 200, MIRROR3),
        (10, 200, RS48),
        (10, 1000, RS48),
    ):
        held = round(tebibytes * 2**40 / SHARD_BYTES * redundancy.total / hosts)
        sized = UnitCost(
            unit.leaf_bytes, unit.leaf_cpu_seconds, SHARD_BYTES / redundancy.needed, unit.cpu_seconds_per_byte
        )
        made = plan([held] * hosts, sized)
        cost = load(made, [held] * hosts, sized)
        table.rows.append(
            (
                f"{tebibytes:g} TiB {redundancy}",
                str(hosts),
                f"{held:,}",
                f"{made.leaves_per_day:.0f} of {LEAVES_PER_DAY}",
                f"{detection_probability(0.01, int(made.leaves_per_day)):.1%} in a day",
                f"{made.sweep_days:.0f} days",
                f"{cost.bytes_per_second * 8 / 10e6:.2%}",
                f"{cost.cpu_share:.3%}",
            )
        )
    yield table


def played(
    world: World, redundancy: Redundancy, size: Size, line: Line | None = None, *, gibibytes: float = 1024
) -> Result:
    """One run."""
    return Simulation(
        world, redundancy, shards=size.shards, volume_bytes=gibibytes * 2**30, line=line, seed=size.seed
    ).run(size.years)


def rate(result: Result) -> float:
    """Losses per shard-year; none seen: three would have been in one case of twenty (rule of three)."""
    return max(result.losses, 3 if result.losses == 0 else 0) / result.shard_years


def described(result: Result) -> tuple[str, ...]:
    """The columns of `RESULT_HEADER`."""
    stored = SHARD_BYTES * result.redundancy.total / result.redundancy.needed * result.shard_years
    return (
        f"< {rate(result):.1e}" if result.losses == 0 else f"{rate(result):.1e} ({result.losses})",
        f"{result.patches / result.shard_years:.1f}",
        f"{result.made_anew / result.shard_years:.1f}",
        f"{(result.read_bytes + result.written_bytes) / stored:.1f}",
        f"{result.busy_seconds / result.seconds:.0%}",
        f"{result.readable / max(1, result.asked):.2%}",
    )


def by_formula(redundancy: Redundancy, life_seconds: float) -> float:
    """For hosts that are on until they die, patched as soon as our rules would."""
    waits: Mapping[Urgency, float] = {
        "now": SHORTEST_DOUBT_SECONDS + PATCH_SECONDS,
        "soon": GRACE_SECONDS + PATCH_SECONDS,
    }
    return losses_per_shard_year(redundancy, life_seconds, waits)


QUESTIONS = {
    "redundancy": by_redundancy,
    "grace": by_grace,
    "margin": by_margin,
    "line": by_line,
    "outages": by_outages,
    "sweep": by_sweep,
    "size": by_size,
    "small": small_networks,
    "churn": churn,
}


def asked(names: Iterable[str], size: Size) -> Iterator[Table]:
    """The tables of these questions, as they are ready."""
    for name in names:
        yield from QUESTIONS[name](size)
