"""`python -m tests.bench`: one run, one table.

The table goes to standard output, progress to standard error. `--quick` is for seeing that everything works and
roughly where it stands; only full runs belong into docs/performance.md.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence

from tests.bench.alone import ROWS as ALONE
from tests.bench.alone import in_a_worker
from tests.bench.groups import FULL, GROUPS, QUICK, Bench
from tests.bench.places import BareDrive, DriveDirectory, PlainDirectory, drop_kernel_caches
from tests.bench.table import Row, markdown
from tests.drive import Drive


def main() -> None:
    """Parse, run, print."""
    arguments = parse(sys.argv[1:])
    names = arguments.rows.split(",") if arguments.rows else [*GROUPS, *(() if arguments.bare else ALONE)]
    if unknown := set(names) - GROUPS.keys() - ALONE.keys():
        sys.exit(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join([*GROUPS, *ALONE])}")
    started = time.monotonic()
    scratch = tempfile.mkdtemp(prefix="layrfs-bench-", dir=arguments.dir)
    try:
        facts = machine(scratch)
        rows = measure(scratch, names, arguments)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    facts["took"] = f"{time.monotonic() - started:.0f} s"
    if arguments.json:
        print(json.dumps({"machine": facts, "rows": [row.as_json() for row in rows]}, indent=1))
    else:
        print("\n".join(f"- {name}: {value}" for name, value in facts.items()), markdown(rows), sep="\n\n")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="The drive against a plain directory.")
    parser.add_argument("--quick", action="store_true", help="less of everything: under a minute")
    parser.add_argument("--rows", help=f"only these groups, comma-separated: {', '.join([*GROUPS, *ALONE])}")
    parser.add_argument(
        "--bare", action="store_true", help="a bare pyfuse3 file system in the drive's place: the ceiling"
    )
    parser.add_argument("--json", action="store_true", help="values instead of a table")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR", "/tmp"), help="where to work (default: %(default)s)")
    return parser.parse_args(words)


def measure(scratch: str, names: Sequence[str], arguments: argparse.Namespace) -> list[Row]:
    """All rows asked for, in the order of the groups."""
    sizes = QUICK if arguments.quick else FULL
    rows: list[Row] = []
    for name in (name for name in ALONE if name in names):
        rows += told(in_a_worker(name, os.path.join(scratch, name), sizes.stream_bytes // 4))
    if groups := [GROUPS[name] for name in GROUPS if name in names]:
        place = os.path.join(scratch, "drive")
        with BareDrive(place) if arguments.bare else Drive(place) as drive:
            sources = os.path.join(scratch, "sources")
            os.mkdir(sources)
            bench = Bench(PlainDirectory(os.path.join(scratch, "plain")), DriveDirectory(drive), sizes, sources)
            for group in groups:
                rows += told(group.write(bench))
            bench.plain.settle()
            bench.drive.empty()
            for group in groups:
                rows += told(group.read(bench))
    return [row for row in rows if not (arguments.bare and needs_hosts(row))]


def needs_hosts(row: Row) -> bool:
    """Rows that mean nothing for the bare file system, which is never cold and has no hosts."""
    return any(word in row.name for word in ("cold", "hosts", "uploads", "owner"))


def told(rows: Iterable[Row]) -> list[Row]:
    """The rows, each shown as it comes."""
    kept = []
    for row in rows:
        print(markdown([row]).splitlines()[-1], file=sys.stderr, flush=True)
        kept.append(row)
    return kept


def machine(scratch: str) -> dict[str, str]:
    """What the numbers depend on."""
    command = " ".join(["python -m tests.bench", *sys.argv[1:]])
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    load = os.getloadavg()[0]
    return {
        "command": f"`{command}`",
        "machine": f"{len(os.sched_getaffinity(0))} cores of {models[0] if models else platform.machine()}, "
        f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} GiB memory, load {load:.1f} at the start",
        "system": f"Linux {platform.release()}, Python {platform.python_version()}, {file_system(scratch)}",
        "cold": drop_kernel_caches(scratch),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def file_system(path: str) -> str:
    """The type of the file system that holds a path."""
    best, kind = "", "unknown"
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            _, where, what, *_ = line.split()
            if os.path.commonpath([where, path]) == where and len(where) >= len(best):
                best, kind = where, what
    return kind


if __name__ == "__main__":
    main()
