"""`python -m tests.bench.paid`: writing to three hosts that are paid against three that are free, in turn.

A real ledger process, six host processes, two drives on the same machine. Each stream is written until it is on hosts;
contracts have the default period and number of instalments. Prints one row.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.files import clock, write_chunks
from tests.bench.table import Row, markdown
from tests.drive import Drive, HostNetwork, layrfs
from tests.hosts.local_ledger import ledger_run
from tests.trees import MIB, Incompressible

HOSTS, PRICE = 3, "2"


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.paid")
    parser.add_argument("--mib", type=int, default=160, help="of each stream (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each kind (default: %(default)s)")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR", "/tmp"), help="where to work (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="layrfs-paid-", dir=arguments.dir) as scratch:
        print(markdown([measured(scratch, arguments.mib, arguments.rounds)]))


def measured(scratch: str, mib: int, rounds: int) -> Row:
    """The paid drive's speed; the plain directory's column is the free one's."""
    paid_speeds, free_speeds = list[float](), list[float]()
    with free_drive(os.path.join(scratch, "free")) as free, paid_drive(os.path.join(scratch, "paid")) as paid:
        for number in range(rounds + 1):
            for drive, speeds in ((free, free_speeds), (paid, paid_speeds)):
                speed = written(drive, number, mib)
                if number:  # the first is for connections, contracts and memory
                    speeds.append(speed)
    spread = ", ".join(f"{one / other:.2f}" for one, other in zip(paid_speeds, free_speeds, strict=True))
    paid_mean, free_mean = statistics.mean(paid_speeds), statistics.mean(free_speeds)
    return Row("write until on hosts, paid", "MiB/s", paid_mean, free_mean, bar=0.85, bar_on_ratio=True, note=spread)


@contextlib.contextmanager
def free_drive(directory: str) -> Iterator[Drive]:
    """On hosts that want nothing."""
    hosts = HostNetwork(os.path.join(directory, "hosts"), HOSTS)
    with hosts, Drive(os.path.join(directory, "drive"), seeds=hosts.seeds) as drive:
        yield drive


@contextlib.contextmanager
def paid_drive(directory: str) -> Iterator[Drive]:
    """On hosts with a price, all of them and the owner with lumens of a ledger of their own."""
    with ledger_run(Path(directory, "ledger")) as ledger:
        words = ("--price", PRICE, "--ledger", ledger.url)
        with HostNetwork(os.path.join(directory, "hosts"), HOSTS, words=words) as hosts:
            drive = Drive(os.path.join(directory, "drive"), seeds=hosts.seeds)
            drive.init()
            layrfs(drive.home, "wallet", "ledger", ledger.url)
            layrfs(drive.home, "wallet", "fund")
            for number in range(HOSTS):
                lines = Path(hosts.output(number)).read_text("utf-8").splitlines()
                address = next(line.split()[1] for line in lines if line.startswith("wallet "))
                ledger.request("GET", "friendbot", params={"addr": address}).raise_for_status()
            with drive:
                layrfs(drive.home, "set", drive.path, f"max_price={PRICE}")
                yield drive


def written(drive: Drive, number: int, mib: int) -> float:
    """MiB/s from the program's first write until all is on hosts."""
    chunks = list(Incompressible(seed=number).chunks(mib * MIB))
    with clock() as taken:
        write_chunks(os.path.join(drive.path, str(number)), chunks)
        drive.sync()
    return mib / taken.seconds


if __name__ == "__main__":
    main()
