"""Hosts leave for good, one after the other, while a drive on them is written to and read from.

    python -m tests.reliability.churn [--hosts 20] [--minutes 10] [--every 10] [--redundancy mirror:3] [--seed 1]

Every host is a process of its own. Every ``--every`` seconds one at random is killed with SIGKILL, all it had is
deleted, and an empty one with another identity takes its place. The drive's upkeep lives faster than its clock
(``layrfs.tempo``), so that hourly visits are made twice a minute. At the end everything is read back from hosts with an
empty cache, on this machine and on one that has nothing but the phrase. Prints one row of a table, and whatever was
wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from layrfs import tempo
from layrfs.host.directory import HostDirectory
from tests.drive import Drive, Failed, HostNetwork, layrfs

TEMPO = 100
"""Visits are 36 s apart on average, and after 3 s a silent host is doubted."""

PATCH_AFTER_SECONDS = 10
"""What a host has that was silent for so long, by everybody's clock, is made anew."""

LARGEST_BYTES = 3 << 20
DROP_SECONDS = 5.0
HEAL_SECONDS = 240.0
LOOK_SECONDS = 1.0


@dataclass
class Load:
    """Files that are written, overwritten, removed, and read again from hosts, in one directory."""

    drive: Drive
    root: str
    dice: random.Random
    bytes_per_second: float = 1 << 19
    files: dict[str, int] = field(default_factory=dict)
    """What must be there: the seed of each file's content."""
    written_bytes: int = 0
    read_bytes: int = 0
    wrong: list[str] = field(default_factory=list)

    def write(self, over: threading.Event) -> None:
        """At an even pace, until it is over."""
        while not over.wait(self.step() / self.bytes_per_second):
            pass

    def step(self) -> int:
        """One file written or written anew, now and then one removed; how many bytes."""
        name, seed = f"f{self.dice.randrange(1 + len(self.files) * 5 // 4)}", self.dice.getrandbits(32)
        if name in self.files and self.dice.random() < 0.1:
            del self.files[name]
            os.unlink(os.path.join(self.root, name))
            return 0
        data = content(seed)
        with open(os.path.join(self.root, name), "wb") as file:
            self.files[name] = seed
            file.write(data)
        self.written_bytes += len(data)
        return len(data)

    def read(self, over: threading.Event) -> None:
        """Some files at a time, when nothing of them is on this machine any more."""
        dice = random.Random(self.dice.random())
        while not over.wait(DROP_SECONDS):
            self.drive.drop_cache()
            for name in dice.sample(sorted(self.files), min(3, len(self.files))):
                self.check(self.root, name)

    def check(self, root: str, name: str) -> None:
        """A file that is not as it was written is noted; one that is written or removed meanwhile is another's."""
        seed = self.files.get(name)
        try:
            with open(os.path.join(root, name), "rb") as file:
                found: bytes | OSError = file.read()
        except OSError as error:
            found = error
        if seed is None or seed != self.files.get(name) or found == content(seed):
            self.read_bytes += len(found) if isinstance(found, bytes) else 0
        elif not isinstance(found, FileNotFoundError):
            self.wrong.append(f"{name}: {found if isinstance(found, OSError) else 'other bytes'}")

    def check_all(self, root: str) -> None:
        """Every file, and that there is no other."""
        there = sorted(os.listdir(root))
        if there != sorted(self.files):
            self.wrong.append(f"names: {sorted(set(there) ^ set(self.files))}")
        for name in self.files:
            self.check(root, name)


@dataclass
class Churned:
    """What became of one run."""

    killed: int = 0
    shards: int = 0
    made_anew: int = 0
    """Pieces that are there at the end and were not there first."""
    healed_seconds: float = 0.0
    lost: int = 0
    """Shards, as the drive says."""


def content(seed: int) -> bytes:
    """Of a file: many are small, none is like another."""
    dice = random.Random(seed)
    return dice.randbytes(min(LARGEST_BYTES, int(dice.paretovariate(0.5) * 2000)))


def churn(
    directory: str,
    *,
    hosts: int,
    seconds: float,
    every_seconds: float,
    redundancy: str,
    kib_per_second: float,
    seed: int,
) -> bool:
    """One run; whether nothing was lost and nothing was wrong."""
    dice = random.Random(seed)
    with (
        HostNetwork(os.path.join(directory, "hosts"), hosts) as network,
        hurried(os.path.join(directory, "drive"), network) as drive,
    ):
        root = os.path.join(drive.path, "load")
        os.mkdir(root)
        os.setxattr(root, "user.layrfs.redundancy", redundancy.encode())
        load, done = Load(drive, root, dice, kib_per_second * 1024), Churned()
        with at_work(load):
            kill_and_replace(network, drive, done, dice, seconds=seconds, every_seconds=every_seconds)
        heal(network, drive, load, done)
        read_back(directory, network, drive, load, done)
    print(row(hosts, seconds, redundancy, load, done))
    for sentence in load.wrong:
        print(sentence)
    return not load.wrong and not done.lost


def hurried(
    directory: str, network: HostNetwork, *, hurry: float = TEMPO, patch_after_seconds: float = PATCH_AFTER_SECONDS
) -> Drive:
    """A drive that is not mounted yet, with fast upkeep."""
    options = ["upload_after=1", f"patch_after={patch_after_seconds * hurry:.0f}"]
    drive = Drive(directory, seeds=network.seeds, options=options)
    drive.variables = {tempo.VARIABLE: str(hurry)}
    return drive


@contextlib.contextmanager
def at_work(load: Load) -> Iterator[None]:
    """Meanwhile the drive is written to and read from; what these programs could not do is raised at the end."""
    over, failed = threading.Event(), list[BaseException]()

    def work(what: Callable[[threading.Event], None]) -> None:
        try:
            what(over)
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            failed.append(error)

    threads = [threading.Thread(target=work, args=(what,), daemon=True) for what in (load.write, load.read)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]


def kill_and_replace(
    network: HostNetwork, drive: Drive, done: Churned, dice: random.Random, *, seconds: float, every_seconds: float
) -> None:
    """One host after the other, at an even pace; those that were there from the start are not spared."""
    began = time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(left, max(0.0, began + (done.killed + 1) * every_seconds - time.monotonic())))
        network.replace(dice.randrange(len(network.homes)))
        done.killed += 1
        look(drive, done)


def look(drive: Drive, done: Churned) -> None:
    """How the drive says it is; a shard that was lost at any time counts."""
    status = drive.status()
    done.shards, done.lost = status["shards"], max(done.lost, status["lost_shards"])
    print(f"{done.killed} killed, {done.shards} shards, {done.lost} lost", file=sys.stderr, flush=True)


def heal(network: HostNetwork, drive: Drive, load: Load, done: Churned) -> None:
    """Until each file has all its pieces again: not as the drive says, but on the hosts' disks."""
    began = time.monotonic()
    drive.sync()
    while missing := missing_pieces(network, drive, load):
        if time.monotonic() > began + HEAL_SECONDS:
            raise Failed(f"not whole again within {HEAL_SECONDS:.0f} s: {missing[:9]}")
        time.sleep(LOOK_SECONDS)
    done.healed_seconds = time.monotonic() - began


def missing_pieces(network: HostNetwork, drive: Drive, load: Load) -> list[str]:
    """Pieces that are in no host's directory, of those that manifests name and of those that they should name."""
    there = pieces_there(network)
    living = {host for host, _ in there}
    shards = shards_of(drive, load)
    named = {(piece["host"], piece["id"]) for shard in shards for piece in shard["pieces"]}
    short = [f"a piece of {shard['id']}" for shard in shards if len(shard["pieces"]) < shard["total"]]
    return [
        *short,
        *(f"{piece} at {host}, which {'lives' if host in living else 'is gone'}" for host, piece in named - there),
    ]


def pieces_there(network: HostNetwork) -> set[tuple[str, str]]:
    """Host and piece, both in hex, of every piece file of the hosts that live now."""
    homes = [HostDirectory(os.path.join(home, "data")) for home in network.homes]
    living = [home.existing_identity().node_id.hex() for home in homes]
    return {
        (host, os.path.basename(path)) for number, host in enumerate(living) for path in network.piece_files(number)
    }


def shards_of(drive: Drive, load: Load) -> list[dict[str, Any]]:
    """As manifests have them; one that several files share is there several times."""
    return [shard for name in load.files for shard in drive.manifest(os.path.join(load.root, name))["shards"]]


def read_back(directory: str, network: HostNetwork, drive: Drive, load: Load, done: Churned) -> None:
    """From hosts alone: with an emptied cache, then on a machine that knows 24 words and two addresses."""
    drive.sync()
    drive.remount(emptied=True)
    load.check_all(load.root)
    look(drive, done)
    pieces = {piece["id"]: piece["generation"] for shard in shards_of(drive, load) for piece in shard["pieces"]}
    done.made_anew = sum(generation > 0 for generation in pieces.values())
    drive.umount()
    other = Drive(os.path.join(directory, "other"), seeds=network.seeds, options=["take_over"])
    phrase = os.path.join(directory, "drive", "phrase")
    layrfs(other.home, "recover", "--phrase-file", phrase, *network.seeds)
    with other:
        load.check_all(os.path.join(other.path, os.path.basename(load.root)))


def row(hosts: int, seconds: float, redundancy: str, load: Load, done: Churned) -> str:
    """As it stands in docs/reliability.md."""
    mib = 1 << 20
    return (
        f"| {redundancy} | {hosts} | {seconds / 60:.1f} min | {done.killed} | {load.written_bytes / mib:.0f} MiB | "
        f"{load.read_bytes / mib:.0f} MiB | {done.shards} | {done.made_anew} | {done.healed_seconds:.0f} s | "
        f"{done.lost} | {len(load.wrong)} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--redundancy", default="mirror:3")
    parser.add_argument("--rate", type=float, default=512.0, metavar="KIB", help="written in a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory, ignore_cleanup_errors=True) as directory:
        well = churn(
            directory,
            hosts=asked.hosts,
            seconds=asked.minutes * 60,
            every_seconds=asked.every,
            redundancy=asked.redundancy,
            kib_per_second=asked.rate,
            seed=asked.seed,
        )
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
