"""`python -m tests.bench.codes`: rs:4/8 against mirror:3, in turn, on eight real hosts beside the drive.

Writes a stream into a folder of each until it is fsynced on hosts, several times; then kills four hosts, empties every
cache and reads what is coded. Prints a table; only full runs belong into docs/reliability.md.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator

from tests.bench.files import clock, read_through, write_chunks
from tests.bench.places import drop_kernel_caches
from tests.bench.table import Row, markdown
from tests.drive import Drive, HostNetwork, cpu_seconds, layrfs
from tests.trees import MIB, Incompressible

CODED, MIRRORED = "rs:4/8", "mirror:3"
HOSTS, KILLED = 8, (0, 2, 5, 7)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.codes")
    parser.add_argument("--mib", type=int, default=512, help="of each stream (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind (default: %(default)s)")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR", "/tmp"), help="where to work (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="layrfs-codes-", dir=arguments.dir) as scratch:
        print(markdown(list(measure(scratch, arguments.mib, arguments.rounds))))


def measure(scratch: str, mib: int, rounds: int) -> Iterator[Row]:
    """All rows; the plain directory's column is mirror:3's."""
    network = HostNetwork(os.path.join(scratch, "hosts"), HOSTS)
    with network as hosts, Drive(os.path.join(scratch, "drive"), seeds=network.seeds) as drive:
        speeds: dict[str, list[float]] = {CODED: [], MIRRORED: []}
        costs: dict[str, list[float]] = {CODED: [], MIRRORED: []}
        for number in range(rounds + 1):
            for redundancy in (CODED, MIRRORED):
                speed, cost = written(drive, redundancy, number, mib if number else min(mib, 64))
                if number:  # the first is for connections and memory
                    speeds[redundancy].append(speed)
                    costs[redundancy].append(cost)
        coded, mirrored = (statistics.mean(speeds[redundancy]) for redundancy in (CODED, MIRRORED))
        yield Row(f"write until fsynced on hosts, {CODED}", "MiB/s", coded, mirrored, bar=0.7, bar_on_ratio=True)
        coded, mirrored = (statistics.mean(costs[redundancy]) for redundancy in (CODED, MIRRORED))
        yield Row(f"owner's CPU for it, {CODED}", "s/GiB", coded, mirrored, better="less")
        cold(drive)
        (coded, cost), (mirrored, other) = read(drive, CODED, rounds, mib), read(drive, MIRRORED, rounds, mib)
        yield Row(f"cold read, {CODED}", "MiB/s", coded, mirrored)
        yield Row(f"owner's CPU for it, {CODED}", "s/GiB", cost, other, better="less")
        for number in KILLED:
            hosts.kill(number)
        cold(drive)
        for number in range(1, rounds + 1):
            speed, cost = read(drive, CODED, number, mib)
            note = f"{len(KILLED)} of {HOSTS} hosts dead, file {number}"
            yield Row(f"cold read, {CODED}", "MiB/s", speed, bar=150, note=note)
            yield Row(f"owner's CPU for it, {CODED}", "s/GiB", cost, better="less")


def written(drive: Drive, redundancy: str, number: int, mib: int) -> tuple[float, float]:
    """MiB/s from the program's first write until all is on hosts, and the owner's CPU seconds for a GiB of it."""
    path = place(drive, redundancy, number)
    if not os.path.isdir(os.path.dirname(path)):
        os.mkdir(os.path.dirname(path))
        layrfs(drive.home, "set", os.path.dirname(path), f"redundancy={redundancy}")
    chunks = list(Incompressible(seed=number * 2 + (redundancy == CODED)).chunks(mib * MIB))
    owner = drive.owner_pids()
    before = cpu_seconds(owner)
    with clock() as taken:
        write_chunks(path, chunks)
        drive.sync()
    return mib / taken.seconds, (cpu_seconds(owner) - before) * 1024 / mib


def read(drive: Drive, redundancy: str, number: int, mib: int) -> tuple[float, float]:
    """MiB/s, and the owner's CPU seconds for a GiB."""
    owner = drive.owner_pids()
    before = cpu_seconds(owner)
    seconds = read_through(place(drive, redundancy, number))
    return mib / seconds, (cpu_seconds(owner) - before) * 1024 / mib


def cold(drive: Drive) -> None:
    """Nothing is on this machine any more but what hosts store."""
    drive.remount(emptied=True)
    drop_kernel_caches(drive.path)


def place(drive: Drive, redundancy: str, number: int) -> str:
    """A stream's path."""
    return os.path.join(drive.path, redundancy.replace(":", "-").replace("/", "-"), f"stream-{number}")


if __name__ == "__main__":
    main()
