"""The power goes: a recorded drive is put together again as its disk may have been at many moments, and mounted.

    python -m tests.reliability.cuts --count 300 --seed 1 [--directory DIR]

Everything of one drive is recorded (mount, workers, its five hosts on the same disk) while a workload writes and
somebody syncs, empties the cache and reads; in the middle it is unmounted, and a day goes by. Then for each cut a disk
is made (``tests.reliability.disk``), the drive mounted on it as after a start of the machine, and what is there
compared with what had been promised at that moment; then all is synced, the cache emptied, everything read again from
hosts, and the volume's invariants are checked.
Another machine recovers it from the hosts as well, and must see the same files: what is here can be right, and what
hosts have wrong.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from layrfs.config import DEFAULT_VOLUME, Paths
from layrfs.control import commands
from layrfs.control.client import ControlClient
from layrfs.errors import LayrError
from layrfs.storage.database import Database
from tests.drive import REPOSITORY, Drive, Failed, environment, layrfs
from tests.reliability.disk import AGE_SECONDS, NOTE, Disk, Severity, aged, compiled, recording, records
from tests.reliability.invariants import violations
from tests.reliability.promises import Promises
from tests.volumes import Rows

WORKING = "work"
AGAIN = 5000
"""Added to the seed of a workload that goes on where another has ended."""

AGEING = """
import sys
from layrfs.storage.database import Database
with Database(sys.argv[1]) as database:
    database.write("UPDATE local_use SET used = used - ?", (int(sys.argv[2]),))
    database.write("UPDATE local_mark SET value = value - ? WHERE name IN ('written', 'trusted')", (int(sys.argv[2]),))
"""

SEVERITIES = tuple(Severity(*one) for one in ((0, 0), (1, 1), (0.5, 0.5), (0, 1), (1, 0), (0.5, 1), (0.9, 0)))


class Cut(NamedTuple):
    """When (number of a record), how bad, with which dice."""

    at: int
    severity: Severity
    seed: int


def record(directory: str, seed: int, steps: int, library: str) -> str:
    """Run a drive for a while; the path of the recording."""
    log = os.path.join(directory, "recording")
    drive = Drive(directory, options=["upload_after=0"])
    variables = recording(library, drive.home, log)
    layrfs(drive.home, "init", "--phrase-file", os.path.join(directory, "phrase"), variables=variables)
    drive.variables = variables
    root = os.path.join(drive.path, WORKING)
    with drive:
        os.mkdir(root)
        if seed % 2:
            os.setxattr(root, "user.layrfs.sharding", b"size:64K")
        _work(drive, root, seed, steps // 2, log)
        drive.umount()
    _age(drive, log)
    with drive:
        _work(drive, root, seed + AGAIN, steps - steps // 2, log)
        drive.crash()
    return log


def _work(drive: Drive, root: str, seed: int, steps: int, log: str) -> None:
    command = [sys.executable, "-m", "tests.reliability.workload", root, str(seed), log, "--recording"]
    with subprocess.Popen([*command, "--steps", str(steps)], cwd=REPOSITORY, stdout=subprocess.DEVNULL) as workload:
        while workload.poll() is None:
            _use(drive, root)


def _age(drive: Drive, log: str) -> None:
    """What was done to the cache was done yesterday, and its rows say so."""
    paths = Paths.under(drive.home)
    variables = environment(drive.home) | dict(drive.variables)
    subprocess.run(
        [sys.executable, "-c", AGEING, paths.database(DEFAULT_VOLUME), str(AGE_SECONDS)], env=variables, check=True
    )
    with open(log, "ab", buffering=0) as file:
        file.write(aged(paths.cache_dir(DEFAULT_VOLUME)))


def _use(drive: Drive, root: str) -> None:
    """What moves bytes to hosts and back."""
    client = ControlClient(Paths.under(drive.home).control_socket(DEFAULT_VOLUME))
    client.call(commands.SYNC, commands.AtPath(b"/"))
    client.call(commands.CACHE_DROP, commands.Nothing())
    for name in os.listdir(root):
        if os.path.isfile(os.path.join(root, name)):
            with open(os.path.join(root, name), "rb") as file:
                file.read(100_000)


def cuts(log: str, count: int, seed: int) -> list[Cut]:
    """Moments after the first promise, in order."""
    kinds = [record.kind for record in records(log)]
    first, dice = kinds.index(NOTE), random.Random(seed)
    moments = sorted(dice.randrange(first, len(kinds)) for _ in range(count))
    return [Cut(at, dice.choice(SEVERITIES), seed * 100_000 + number) for number, at in enumerate(moments)]


def states(root: str, log: str, wanted: list[Cut], target: str) -> Iterator[tuple[Cut, Promises]]:
    """Each cut with what was promised by then; the disk is in ``target`` meanwhile."""
    disk, promises, waiting = Disk(root), Promises(), list(wanted)
    for number, one in enumerate(records(log)):
        while waiting and waiting[0].at == number:
            cut = waiting.pop(0)
            shutil.rmtree(target, ignore_errors=True)
            disk.leave(target, cut.severity, random.Random(cut.seed))
            yield cut, copy.deepcopy(promises)
        disk.take(one)
        if one.kind == NOTE:
            promises.take(json.loads(one.data))


def broken_after(directory: str, promises: Promises, seed: int, phrase: str) -> list[str]:
    """Mount what is in ``directory/home``; every promise it does not keep. ``phrase`` is a file with its words."""
    drive = Drive(directory, options=["upload_after=0"])
    drive.variables = {"LAYRFS_BOOT_ID": f"after cut {seed}"}
    root, paths = os.path.join(drive.path, WORKING), Paths.under(drive.home)
    try:
        with drive:
            broken = promises.check(root)
            if os.path.isdir(root):
                promises.adopt(root)
            _use(drive, root) if os.path.isdir(root) else None
            broken += [f"from hosts: {one}" for one in promises.check(root)]
            elsewhere = _recovered(drive, os.path.join(directory, "elsewhere"), phrase)
            drive.umount()
        here = _files(paths.database(DEFAULT_VOLUME))
        broken += [f"another machine recovers another {name}" for name, rows in here.items() if rows != elsewhere[name]]
        return broken + violations(paths.database(DEFAULT_VOLUME), paths.cache_dir(DEFAULT_VOLUME))
    except (Failed, LayrError, OSError) as error:
        return [str(error)]


def _recovered(drive: Drive, home: str, phrase: str) -> Rows:
    """The files of the volume as a machine has them that has nothing but its words and the addresses of hosts."""
    drive.sync()
    shutil.rmtree(home, ignore_errors=True)
    with open(os.path.join(drive.home, "embedded", "seeds.json"), encoding="utf-8") as file:
        seeds = json.load(file)["seeds"]
    layrfs(home, "recover", "--phrase-file", phrase, *seeds)
    return _files(Paths.under(home).database(DEFAULT_VOLUME))


def _files(path: str) -> Rows:
    """Names, sizes and contents; when a file was read last is not published at once."""
    queries = {
        "directory": "SELECT * FROM entry",
        "file": "SELECT number, mode, size, nlink, mtime_ns FROM inode",
        "attribute": "SELECT * FROM attribute",
        "block": "SELECT b.inode, b.number, c.digest FROM block b LEFT JOIN content c ON c.number = b.content",
    }
    with Database(path) as database:
        return {name: sorted(database.rows(query)) for name, query in queries.items()}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory")
    parser.add_argument("--only", type=int, help="the seed of one cut")
    asked = parser.parse_args()
    started, bad, done = time.monotonic(), 0, 0
    place = tempfile.TemporaryDirectory(dir=asked.directory, ignore_cleanup_errors=True)
    with place as directory:
        log = record(os.path.join(directory, "recorded"), asked.seed, asked.steps, compiled(directory))
        wanted = [cut for cut in cuts(log, asked.count, asked.seed) if asked.only in {None, cut.seed}]
        home, phrase = (os.path.join(directory, "recorded", name) for name in ("home", "phrase"))
        for cut, promises in states(home, log, wanted, os.path.join(directory, "cut", "home")):
            done += 1
            fsynced = promises.fsynced
            if broken := broken_after(os.path.join(directory, "cut"), promises, cut.seed, phrase):
                bad += 1
                print(f"{cut}, {fsynced} fsyncs: ", *broken, sep="\n  ", flush=True)
    print(f"{done} cuts, {bad} bad, {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
