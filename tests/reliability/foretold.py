"""What the durability simulation foretells of real hosts, and what becomes of them.

    python -m tests.reliability.foretold [--hosts 20] [--minutes 5] [--every 10] [--files 60] [--seed 1]

The simulation of docs/durability.md is about years; this plays minutes of it twice. Once with host processes, of which
one at random is replaced by an empty one every so often, under a drive whose upkeep lives faster than its clock
(``layrfs.tempo``): what is left is counted on the hosts' disks. And many times in the simulation, with the same
numbers; how long a drive takes to notice that a host is gone is measured in the first and put into the second. Nobody
reads or writes meanwhile. Prints a table.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import NamedTuple

from layrfs.host.directory import HostDirectory
from layrfs.model.redundancy import Redundancy
from tests.bench.durability.rules import rules
from tests.bench.durability.simulation import SHARD_BYTES, Simulation
from tests.bench.durability.world import HOUR, YEAR, Kind, Line, World
from tests.drive import Drive, HostNetwork
from tests.reliability.churn import TEMPO, hurried, pieces_there

REDUNDANCIES = tuple(Redundancy.parse(text) for text in ("mirror:2", "mirror:3", "rs:2/4"))
FILE_BYTES = (2 << 20) + 1
"""Two do not fit into one shard, so each file is one."""

PATCH_AFTER_SECONDS = 10
LOOK_SECONDS = 0.5
SETTLE_SECONDS = 60.0
"""After the last kill: what can be made anew has been by then."""

PLAYED = 40
LINE = Line(float(100 << 20) / TEMPO, float(100 << 20) / TEMPO)
"""Between processes of one machine, in bytes for each second of upkeep."""


class Fate(NamedTuple):
    """Of the shards of one redundancy: how many are lost, and how often one that is left was patched."""

    lost: float
    patches: float


class Happened(NamedTuple):
    """What a run of real processes came to; ``noticed_seconds``: until a host was no longer believed to be there."""

    fates: list[Fate]
    noticed_seconds: float


def happened(directory: str, *, hosts: int, kills: int, every_seconds: float, files: int, seed: int) -> Happened:
    """One run of real processes."""
    dice, noticed = random.Random(seed), list[float]()
    with (
        HostNetwork(os.path.join(directory, "hosts"), hosts) as network,
        hurried(os.path.join(directory, "drive"), network, patch_after_seconds=PATCH_AFTER_SECONDS) as drive,
    ):
        for redundancy in REDUNDANCIES:
            fill(drive, redundancy, files, seed)
        drive.sync()
        drive.drop_cache()  # what is lost on hosts would be sent again from there
        began = time.monotonic()
        for number in range(kills):
            noticed += replaced(network, drive, dice.randrange(hosts), began + (number + 1) * every_seconds)
        time.sleep(SETTLE_SECONDS)
        there = pieces_there(network)
        return Happened([fate(drive, redundancy, there) for redundancy in REDUNDANCIES], statistics.mean(noticed))


def replaced(network: HostNetwork, drive: Drive, number: int, until: float) -> list[float]:
    """Another host in place of one, and after how many seconds the drive knew that it is gone, if before ``until``.

    Returns then.
    """
    node = HostDirectory(os.path.join(network.homes[number], "data")).existing_identity().node_id.hex()
    network.kill(number)
    killed, found = time.monotonic(), list[float]()
    network.replace(number)
    while (left := until - time.monotonic()) > 0:
        if not found and all(host["node_id"] != node or host["state"] == "silent" for host in drive.status()["hosts"]):
            found = [time.monotonic() - killed]
        time.sleep(min(left, LOOK_SECONDS))
    return found


def fill(drive: Drive, redundancy: Redundancy, files: int, seed: int) -> None:
    """A directory of so many shards."""
    folder = place(drive, redundancy)
    os.mkdir(folder)
    os.setxattr(folder, "user.layrfs.redundancy", str(redundancy).encode())
    dice = random.Random(f"{seed} {redundancy}")
    for number in range(files):
        with open(os.path.join(folder, str(number)), "wb") as file:
            file.write(dice.randbytes(FILE_BYTES))


def place(drive: Drive, redundancy: Redundancy) -> str:
    """The directory of a redundancy."""
    return os.path.join(drive.path, str(redundancy).replace("/", "-"))


def fate(drive: Drive, redundancy: Redundancy, there: set[tuple[str, str]]) -> Fate:
    """By the hosts' disks, not by what the drive says."""
    folder, lost, patches = place(drive, redundancy), 0, 0
    for name in os.listdir(folder):
        (shard,) = drive.manifest(os.path.join(folder, name))["shards"]
        left = [piece for piece in shard["pieces"] if (piece["host"], piece["id"]) in there]
        if len(left) < redundancy.needed:
            lost += 1
        else:
            patches += max(piece["generation"] for piece in left)
    return Fate(lost, patches)


def foretold(
    redundancy: Redundancy,
    noticed_seconds: float,
    *,
    hosts: int,
    kills: int,
    every_seconds: float,
    files: int,
    seed: int,
) -> list[Fate]:
    """The same in the simulation, several times; a visit comes at any time up to twice what noticing takes."""
    steady = Kind("steady", math.inf, HOUR, 1e15, 1.0)
    world = World(
        hosts,
        (steady,),
        1,
        outages_per_subnet_year=0,
        wiped=0,
        rot_per_piece_year=0,
        killed_every_seconds=every_seconds * TEMPO,
    )
    seconds = (kills + 0.5) * every_seconds * TEMPO
    fates = []
    with rules(GRACE_SECONDS=PATCH_AFTER_SECONDS * TEMPO):
        for run in range(PLAYED):
            volume_bytes = files * SHARD_BYTES * FILE_BYTES / (4 << 20)
            simulation = Simulation(
                world,
                redundancy,
                shards=files,
                volume_bytes=volume_bytes,
                line=LINE,
                seed=seed * 1000 + run,
                visit_seconds=2 * noticed_seconds * TEMPO,
            )
            result = simulation.run(seconds / YEAR)
            fates.append(Fate(result.losses, result.patches))
    return fates


def row(redundancy: Redundancy, files: int, real: Fate, played: list[Fate]) -> str:
    """As it stands in docs/durability.md."""
    lost, patches = (spread(values) for values in zip(*played, strict=True))
    return f"| {redundancy} | {files} | {real.lost} | {lost} | {real.patches} | {patches} |"


def spread(values: Iterable[float]) -> str:
    """Mean and standard deviation."""
    seen = list(values)
    return f"{statistics.mean(seen):.1f} ± {statistics.stdev(seen):.1f}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    kills = int(asked.minutes * 60 / asked.every)
    numbers = {
        "hosts": asked.hosts, "kills": kills, "every_seconds": asked.every, "files": asked.files, "seed": asked.seed,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        real = happened(directory, **numbers)
    print(f"a host that is gone is noticed after {real.noticed_seconds:.1f} s\n")
    print("| redundancy | shards | lost | foretold | patches of those that are left | foretold |\n" + "|---" * 6 + "|")
    for redundancy, fate_of in zip(REDUNDANCIES, real.fates, strict=True):
        print(row(redundancy, asked.files, fate_of, foretold(redundancy, real.noticed_seconds, **numbers)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
