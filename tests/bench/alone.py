"""Rows for the parts of the pipeline by themselves, without a mount: what each costs an owner's processor.

Nothing here is faster than what the drive uses: the very functions its workers call, on the same 4 MiB blocks, in a
process with the memory settings of a worker.
"""

import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from layrfs.config import MountOptions
from layrfs.crypto.identity import NodeIdentity
from layrfs.crypto.keys import VolumeKeys, new_phrase
from layrfs.crypto.merkle import piece_id
from layrfs.ids import NodeId
from layrfs.model.payables import Salts
from layrfs.model.records import HostAddress
from layrfs.model.redundancy import Redundancy
from layrfs.network.links import HostLinks
from layrfs.pipeline.coding import make_pieces
from layrfs.pipeline.jobs import Place, Upload, Wish
from layrfs.pipeline.pool import KEEP_MEMORY
from layrfs.pipeline.ports import Calls, Tools
from layrfs.pipeline.sealing import Gathered, SealingKeys, seal
from layrfs.pipeline.storing import upload
from layrfs.pipeline.transfers import Slot, SourcePart
from tests.bench.sink_hosts import KEPT_PIECES, NETWORK_ID
from tests.bench.table import Row
from tests.drive import REPOSITORY
from tests.trees import MIB, Incompressible, source_text, write_stream

BLOCK_BYTES = 4 * MIB
COPIES = 3
JOBS_AT_ONCE = 3
DEADLINE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Wall and processor seconds of a measured stretch of this process."""

    wall: float
    cpu: float


@contextmanager
def spending() -> Iterator[list[Spent]]:
    """What a block of this process costs; the list has one entry afterwards."""
    spent: list[Spent] = []
    wall, cpu = time.perf_counter(), time.process_time()
    yield spent
    spent.append(Spent(time.perf_counter() - wall, time.process_time() - cpu))


def parts_of(path: str) -> list[SourcePart]:
    """A file's blocks, as the drive hands them to a worker."""
    size = os.path.getsize(path)
    return [
        SourcePart(1, number, path, offset, min(BLOCK_BYTES, size - offset))
        for number, offset in enumerate(range(0, size, BLOCK_BYTES))
    ]


def sealing(directory: str, size: int) -> Iterator[Row]:
    """Read, digest, compress, encrypt, three masked copies with their Merkle roots: one core, no network."""
    os.makedirs(directory)
    keys = VolumeKeys.from_phrase(new_phrase())
    for what in ("incompressible", "source code"):
        path = os.path.join(directory, what.split()[0])
        write_content(path, size, what)
        with spending() as spent:
            for part in parts_of(path):
                _, plaintext = Gathered([part]).outcomes(SealingKeys.of(keys), lambda _: {})
                sealed = seal(SealingKeys.of(keys), plaintext)
                slots = [Slot(position, 0) for position in range(COPIES)]
                make_pieces(keys.mask, sealed.salt, Redundancy(1, COPIES), slots, sealed.data)
        yield Row(
            f"seal, code and mask alone, {what}", "MiB/s a core", size / MIB / spent[0].cpu, note="three copies made"
        )


def write_content(path: str, size: int, what: str) -> None:
    """Test data that zstd cannot, or can, make smaller."""
    if what == "incompressible":
        write_stream(path, size)
        return
    dice = random.Random(2)
    with open(path, "wb") as file:
        while file.tell() < size:
            file.write(source_text(dice, min(MIB, size - file.tell())))


# --- against hosts that cost the owner nothing ----------------------------------------------------------------------


class NextHosts:
    """A foreman that knows nothing yet, and deals out hosts in turn."""

    def __init__(self, hosts: Sequence[HostAddress], salts: Salts | None = None) -> None:
        """`salts`: what pieces are digested under; None: nobody is paid."""
        self.calls = Calls()
        self.turn = itertools.cycle(hosts)
        self.salts = salts

    def find_content(self, _: Sequence[bytes]) -> Mapping[bytes, tuple[int, int]]:
        """Every block is new."""
        return {}

    def find_places(self, wishes: Sequence[Wish]) -> Sequence[Place | None]:
        """The next ones."""
        return [Place(next(self.turn), self.salts) for _ in wishes]

    def moving(self) -> None:
        """Nobody waits."""

    def tried(self, piece_bytes: int, seconds: float, *, well: bool) -> None:
        """The pace is the bench's own."""


@contextmanager
def sink_hosts() -> Iterator[list[HostAddress]]:
    """Hosts in a process of their own, without disks."""
    command = [sys.executable, "-m", "tests.bench.sink_hosts"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        yield [HostAddress(NodeId(bytes.fromhex(node)), ip, port) for node, ip, port in addresses]
        process.communicate()


def owner_side(directory: str, size: int) -> Iterator[Row]:
    """Whole upload jobs as a worker does them: from a cache file to the last receipt, the hosts being elsewhere."""
    os.makedirs(directory)
    path = os.path.join(directory, "stream")
    write_stream(path, size)
    keys = VolumeKeys.from_phrase(new_phrase())
    with sink_hosts() as hosts, ThreadPoolExecutor(16) as hands, ThreadPoolExecutor(JOBS_AT_ONCE) as jobs:
        tools = Tools(SealingKeys.of(keys), keys.mask, HostLinks(NodeIdentity.generate(), NETWORK_ID), hands)

        def store(part: SourcePart) -> None:
            upload(
                tools,
                NextHosts(hosts[part.block % len(hosts) :] + hosts),
                Upload(part.block, (part,), Redundancy(1, COPIES)),
            )

        list(
            jobs.map(store, parts_of(path)[:JOBS_AT_ONCE])
        )  # connections are open, as they are in a drive that has run a while
        with spending() as spent:
            list(jobs.map(store, parts_of(path)))
    rate = size / MIB
    yield Row(
        "owner's side alone, per core",
        "MiB/s",
        rate / spent[0].cpu,
        bar=140,
        note="read, seal, three copies, TLS; hosts elsewhere",
    )
    yield Row("owner's side alone, CPU", "s/GiB", spent[0].cpu * 1024 / rate, better="less")


def answering(directory: str, size: int) -> Iterator[Row]:
    """The same jobs one after the other, with and without answers made of each piece (``-o answers``)."""
    os.makedirs(directory)
    path = os.path.join(directory, "stream")
    write_stream(path, size)
    keys = VolumeKeys.from_phrase(new_phrase())
    with sink_hosts() as hosts, ThreadPoolExecutor(16) as hands:
        tools = Tools(SealingKeys.of(keys), keys.mask, HostLinks(NodeIdentity.generate(), NETWORK_ID), hands)
        for redundancy in (Redundancy(1, COPIES), Redundancy(4, 8)):
            cpu = dict.fromkeys((0, MountOptions().answers), 0.0)
            for part, (number, answers) in itertools.product(parts_of(path), enumerate(cpu)):
                foreman = NextHosts(hosts[part.block % len(hosts) :] + hosts)
                with spending() as spent:
                    upload(tools, foreman, Upload(number, (part,), redundancy, answers=answers))
                cpu[answers] += spent[0].cpu
            (without, count), blocks = cpu, size / BLOCK_BYTES
            more = cpu[count] - cpu[without]
            yield Row(f"upload of 4 MiB as {redundancy}, CPU", "ms", cpu[without] / blocks * 1000, better="less")
            yield Row(f"{count} answers of each piece, CPU", "ms", more / blocks * 1000, better="less")
            yield Row(
                f"{count} answers of each piece: slower by", "%", 100 * more / cpu[without], better="less", bar=15
            )


def paying(directory: str, size: int) -> Iterator[Row]:
    """The same jobs one after the other, for hosts that are free and for hosts that are paid by instalments."""
    os.makedirs(directory)
    path = os.path.join(directory, "stream")
    write_stream(path, size)
    keys, count = VolumeKeys.from_phrase(new_phrase()), MountOptions().instalments
    salts = Salts(1, 0, tuple(bytes([instalment]) * 32 for instalment in range(count)))
    with sink_hosts() as hosts, ThreadPoolExecutor(16) as hands:
        tools = Tools(SealingKeys.of(keys), keys.mask, HostLinks(NodeIdentity.generate(), NETWORK_ID), hands)
        for redundancy in (Redundancy(1, COPIES), Redundancy(4, 8)):
            cpu = [0.0, 0.0]
            for part, (number, given) in itertools.product(parts_of(path), enumerate((None, salts))):
                foreman = NextHosts(hosts[part.block % len(hosts) :] + hosts, given)
                with spending() as spent:
                    upload(tools, foreman, Upload(number, (part,), redundancy, answers=MountOptions().answers))
                cpu[number] += spent[0].cpu
            what, slower = f"{redundancy} to hosts paid in {count} instalments", 100 * (cpu[1] - cpu[0]) / cpu[0]
            yield Row(f"{what}: slower by", "%", slower, better="less", bar=15)


def piece_transfer(directory: str, size: int) -> Iterator[Row]:
    """Pieces of 4 MiB over TLS and back, verified; the other end is on the same two cores."""
    stream = Incompressible()
    pieces = [b"".join(stream.chunk(number * 4 + part) for part in range(4)) for number in range(KEPT_PIECES)]
    ids = [piece_id(piece) for piece in pieces]
    tenant = NodeIdentity.generate().private
    rounds = max(1, size // (BLOCK_BYTES * KEPT_PIECES))
    work = [(number % KEPT_PIECES) for number in range(rounds * KEPT_PIECES)]
    mib = len(work) * BLOCK_BYTES / MIB
    with sink_hosts() as hosts, ThreadPoolExecutor(4) as threads:
        links = HostLinks(NodeIdentity.generate(), NETWORK_ID)

        def store(number: int) -> None:
            links.store(hosts[0], ids[number], pieces[number], tenant_private=tenant, deadline_seconds=DEADLINE_SECONDS)

        def retrieve(number: int) -> None:
            links.retrieve(hosts[0], ids[number], deadline_seconds=DEADLINE_SECONDS)

        for name, act in (("store", store), ("retrieve and verify", retrieve)):
            with spending() as spent:
                list(threads.map(act, work))
            note = f"{spent[0].cpu * 1024 / mib:.2f} CPU s/GiB on the owner's side"
            yield Row(f"piece transfer alone, {name}", "MiB/s", mib / spent[0].wall, note=note)


ROWS = {"seal": sealing, "owner": owner_side, "transfer": piece_transfer, "answers": answering, "paying": paying}


def in_a_worker(name: str, directory: str, size: int) -> Iterator[Row]:
    """The rows of one measurement, made in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.alone", name, directory, str(size)]
    made = subprocess.run(command, cwd=REPOSITORY, env=os.environ | KEEP_MEMORY, stdout=subprocess.PIPE, check=True)
    for fields in json.loads(made.stdout):
        yield Row(**fields)


if __name__ == "__main__":
    print(json.dumps([asdict(row) for row in ROWS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))]))
