"""`python -m tests.bench.scale --files 100000`: what a volume of many small files costs where it could hurt.

Real processes: five hosts, the mount, `layrfs sync` and `layrfs recover`. Prints a table; asserts nothing.
The numbers of `touch one file` are bytes that appear on the hosts' disks: every copy of the new segment, and the root
record wherever it is kept.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator

from tests.bench.files import clock, create_all, walk
from tests.bench.table import Row, markdown
from tests.drive import Drive, HostNetwork, cpu_seconds, layrfs, run
from tests.trees import MIB, small_files

SAMPLES = 20
SYNC_SECONDS = 3600.0


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description="A volume of many small files.")
    parser.add_argument("--files", type=int, default=100_000, help="how many, of 4 KiB each (default: %(default)s)")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR", "/tmp"), help="where to work (default: %(default)s)")
    arguments = parser.parse_args()
    scratch = tempfile.mkdtemp(prefix="layrfs-scale-", dir=arguments.dir)
    try:
        rows = []
        for row in measure(scratch, arguments.files):
            print(markdown([row]).splitlines()[-1], file=sys.stderr, flush=True)
            rows.append(row)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(markdown(rows))


def measure(scratch: str, count: int) -> Iterator[Row]:
    """Create, kill, replay, upload, touch, lose the machine, recover."""
    with HostNetwork(os.path.join(scratch, "hosts")) as hosts:
        drive = Drive(os.path.join(scratch, "first"), seeds=hosts.seeds, options=["upload_after=100000"])
        drive.mount()
        try:
            yield from _first_machine(drive, hosts, count)
        finally:
            drive.close()
        phrase = os.path.join(os.path.dirname(drive.home), "phrase")
        second = Drive(os.path.join(scratch, "second"), seeds=hosts.seeds)
        try:
            yield from _second_machine(second, hosts, phrase, count)
        finally:
            second.close()


def _first_machine(drive: Drive, hosts: HostNetwork, count: int) -> Iterator[Row]:
    drive.umount()
    with clock() as empty:
        drive.mount()
    empty_cpu = cpu_seconds(drive.owner_pids()[:1])
    files = small_files(os.path.join(drive.path, "files"), count)
    seconds = create_all(files)
    yield Row(f"create {count:,} files", "files/s", count / seconds, note=memory(drive))
    run("sync", "-f", drive.path)
    time.sleep(2)  # the last second's transaction
    drive.crash()
    with clock() as replayed:
        drive.mount()
    cpu = cpu_seconds(drive.owner_pids()[:1]) - empty_cpu
    note = f"mounting an empty volume takes {empty.seconds:.1f} s; {cpu:.2f} CPU seconds more; {memory(drive)}"
    took = replayed.seconds - empty.seconds
    yield Row(f"replay of {count:,} dirty files after kill -9", "s", took, bar=2.0, better="less", note=note)
    with clock() as synced:
        drive.sync(SYNC_SECONDS)
    yield Row(f"sync of {count:,} files", "files/s", count / synced.seconds, note=memory(drive))
    yield from _touched(drive, hosts, files[count // 2][0])


def _touched(drive: Drive, hosts: HostNetwork, path: str) -> Iterator[Row]:
    """Several times: segments are merged now and then, and the one that merges costs more."""
    spent = []
    for _ in range(SAMPLES):
        before = stored(hosts)
        os.utime(path)
        drive.sync()
        spent.append(sum(size for name, size in stored(hosts).items() if before.get(name) != size) / 1024)
    most = max(spent)
    note = f"the most of {SAMPLES} times; {sum(spent) / len(spent):.1f} on average, all copies on all hosts"
    yield Row("metadata sent for touching one file", "KiB", most, bar=64.0, better="less", note=note)


def _second_machine(drive: Drive, hosts: HostNetwork, phrase: str, count: int) -> Iterator[Row]:
    with clock() as listed:
        layrfs(drive.home, "recover", "--phrase-file", phrase, *hosts.seeds)
        drive.mount()
        names = os.listdir(os.path.join(drive.path, "files", "d000"))
    yield Row(f"recover {count:,} files: words to a listing", "s", listed.seconds, bar=15.0, better="less")
    worst = 0.0
    for number in random.Random(1).sample(range(count), SAMPLES):
        path = os.path.join(drive.path, "files", f"d{number // 100:03d}", f"f{number:05d}")
        with clock() as read, open(path, "rb") as file:
            file.read(1)
        worst = max(worst, read.seconds)
    yield Row("first byte of a file then", "s", worst, bar=1.0, better="less", note=f"the slowest of {SAMPLES}")
    seconds, met = walk(os.path.join(drive.path, "files"))
    note = f"{met:,} names; {memory(drive)}"
    yield Row("list and stat everything then", "s", seconds, better="less", note=note)
    if len(names) != min(count, 100):
        raise AssertionError(f"{len(names)} names were listed")


def stored(hosts: HostNetwork) -> dict[str, int]:
    """Every file the hosts keep, with its size; a root record's name carries its change time, for it is replaced."""
    found = {}
    for home in hosts.homes:
        for top, _, names in os.walk(os.path.join(home, "data")):
            for name in names:
                path = os.path.join(top, name)
                facts = os.stat(path)
                found[path if f"{os.sep}pieces{os.sep}" in path else f"{path}@{facts.st_mtime_ns}"] = facts.st_size
    return found


def memory(drive: Drive) -> str:
    """Of the mount's own process."""
    assert drive.process is not None
    with open(f"/proc/{drive.process.pid}/status", encoding="ascii") as lines:
        facts = dict(line.split(":", 1) for line in lines)
    now, most = (int(facts[name].split()[0]) * 1024 // MIB for name in ("VmRSS", "VmHWM"))
    return f"the mount has {now} MiB of memory, {most} at most"


if __name__ == "__main__":
    main()
