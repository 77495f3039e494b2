"""`python -m tests.bench.durability`: the tables of docs/durability.md; one process, about half an hour in full.

`--quick` is for seeing that all of it works. `--audits` measures what one audit costs and prints what follows from it.
"""

import argparse
import sys
import time
from pathlib import Path

from tests.bench.durability.plot import Point, svg
from tests.bench.durability.tables import QUESTIONS, Size, asked, budget
from tests.bench.durability.unit_costs import PIECE_BYTES, measure

FULL, QUICK = Size(shards=1000, years=2), Size(shards=50, years=0.2)


def main() -> None:
    """Tables to standard output as they are ready, progress to standard error."""
    arguments = parse()
    if arguments.audits:
        print(audits())
        return
    names = arguments.only.split(",") if arguments.only else list(QUESTIONS)
    if unknown := set(names) - QUESTIONS.keys():
        sys.exit(f"no such questions: {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    size = Size(arguments.shards, arguments.years, arguments.seed)
    if arguments.quick:
        size = QUICK
    began = time.monotonic()
    points: list[Point] = []
    for table in asked(names, size):
        points += table.points
        print(table.markdown(), end="\n\n", flush=True)
        print(f"{time.monotonic() - began:.0f} s: {table.title}", file=sys.stderr)
    if arguments.svg and points:
        Path(arguments.svg).write_text(
            svg(
                points, "Lost shards per shard-year: seen, and by the formula (hollow)", "stored bytes per byte", "loss"
            )
        )


def audits() -> str:
    """What one audit costs here, and what all of them cost therefore."""
    measured = measure()
    units = (
        f"A proof of one leaf of 4 MiB: {measured.leaf_bytes:,.0f} bytes on the wire, "
        f"{measured.owner_seconds * 1e3:.2f} ms of the owner's processor, "
        f"{measured.host_seconds * 1e3:.2f} ms of the host's. "
        f"A whole piece: {measured.owner_seconds_per_fetched_byte * PIECE_BYTES * 1e3:.0f} ms of the owner's."
    )
    return "\n\n".join([units, *(table.markdown() for table in budget(measured.unit))])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.durability", description=__doc__)
    parser.add_argument("--only", help=f"some of {', '.join(QUESTIONS)}, comma-separated")
    parser.add_argument("--quick", action="store_true", help="a moment of everything")
    parser.add_argument("--shards", type=int, default=FULL.shards)
    parser.add_argument("--years", type=float, default=FULL.years)
    parser.add_argument("--seed", type=int, default=FULL.seed)
    parser.add_argument("--svg", help="where to put the plot of loss by redundancy")
    parser.add_argument("--audits", action="store_true", help="what auditing costs, measured here, instead")
    return parser.parse_args()


if __name__ == "__main__":
    main()
