"""What hosts and the wire get to see: nothing of names and contents. And what comes of a bit that flips on a host."""

import base64
import contextlib
import math
import os
import random
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.drive import REPOSITORY, Drive, HostNetwork, differences, run
from tests.trees import MIB, files_below, source_tree, write_stream

MARKERS = [
    b"Directory-Marker-Kestrel", b"File-Marker-Cormorant", b"Text-Marker-Dunnock", b"Block-Marker-Turnstone",
    b"Target-Marker-Avocet", b"attribute-marker-plover", b"Value-Marker-Whimbrel", b"Packed-Marker-Siskin",
    b"Tail-Marker-Redstart",
]  # fmt: skip
ETHERNET_BYTES, TCP, UDP = 14, 6, 17
PIECE_HEAD_BYTES = 64
"""What a host puts before a piece in its file."""


def fill(root: str) -> None:
    """Put every marker where a careless program would leave it readable."""
    directory = os.path.join(root, "Directory-Marker-Kestrel")
    os.mkdir(directory)
    Path(directory, "File-Marker-Cormorant.txt").write_bytes(b"Text-Marker-Dunnock says little\n" * 30_000)
    noise = random.Random(4).randbytes(5 * MIB)
    Path(directory, "incompressible").write_bytes(noise + b"Block-Marker-Turnstone" + noise[: 3 * MIB])
    os.symlink("/somewhere/Target-Marker-Avocet", os.path.join(directory, "link"))
    os.setxattr(directory, "user.attribute-marker-plover", b"Value-Marker-Whimbrel")
    for number in range(40):
        Path(directory, f"small{number}").write_bytes(b"Packed-Marker-Siskin %d" % number)
    Path(directory, "odd").write_bytes(noise[:-MIB] + b"Tail-Marker-Redstart")


def forms(marker: bytes) -> list[bytes]:
    """How a marker could show: itself, as UTF-16, in hex, in base64 at each of three alignments."""
    text = marker.decode()
    aligned = [base64.b64encode(b"\0" * shift + marker)[4 if shift else 0 : -4] for shift in range(3)]
    return [marker, text.encode("utf-16-le"), marker.hex().encode(), *aligned]


def leaks(data: bytes) -> list[bytes]:
    """The markers that can be found in `data`."""
    return [marker for marker in MARKERS if any(form in data for form in forms(marker))]


class Sniffer:
    """All that crosses loopback from or to some ports, TCP and UDP, as an eavesdropper sees it. Needs CAP_NET_RAW."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = set(ports)
        self.seen = bytearray()
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        with contextlib.suppress(PermissionError):
            self.socket.setsockopt(socket.SOL_SOCKET, 33, 256 * MIB)  # SO_RCVBUFFORCE
        self.socket.bind(("lo", 0))
        self.socket.settimeout(0.2)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self.socket.close()

    def _listen(self) -> None:
        buffer = bytearray(70_000)
        while True:
            try:
                length, address = self.socket.recvfrom_into(buffer)
            except TimeoutError:
                if self.over.is_set():
                    return
                continue
            if address[2] != socket.PACKET_OUTGOING:  # each packet passes loopback twice
                self._take(memoryview(buffer)[ETHERNET_BYTES:length])

    def _take(self, packet: memoryview) -> None:
        if packet[9] not in {TCP, UDP}:
            return
        header = (packet[0] & 15) * 4
        if self.ports & set(struct.unpack_from(">HH", packet, header)):
            self.seen += packet[header:]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[HostNetwork]:
    """Five hosts that write down everything they receive."""
    recorder = os.path.join(REPOSITORY, "tests", "recording_host.py")
    with HostNetwork(str(tmp_path / "hosts"), program=[recorder]) as hosts:
        yield hosts


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    fill(str(tmp_path))
    directory = tmp_path / "Directory-Marker-Kestrel"
    everything = b"\0".join(os.fsencode(path) + path.read_bytes() for path in directory.glob("*[!k]"))
    everything += os.fsencode(os.readlink(directory / "link"))
    for name in os.listxattr(directory):
        everything += name.encode() + os.getxattr(directory, name)
    assert leaks(everything) == MARKERS
    for marker in MARKERS:
        for shift in range(3):
            assert leaks(base64.b64encode(b"x" * shift + marker + b"yz")) == [marker]


def test_no_name_and_no_content_reaches_a_host_or_the_wire(hosts: HostNetwork, tmp_path: Path) -> None:
    try:
        sniffer = Sniffer(hosts.ports)
    except PermissionError:
        pytest.skip("an eavesdropper on loopback needs CAP_NET_RAW")
    with sniffer, Drive(str(tmp_path / "drive"), seeds=hosts.seeds) as drive:
        fill(drive.path)
        drive.sync()
        drive.remount(emptied=True)
        run("cat", os.path.join(drive.path, "Directory-Marker-Kestrel", "incompressible"))
        run("ls", "-lR", drive.path)
    stored_bytes = storing = 0
    for number in range(5):
        received = Path(hosts.homes[number], "received").read_bytes()
        pieces = [Path(path).read_bytes() for path in hosts.piece_files(number)]
        stored_bytes += sum(map(len, pieces))
        storing += bool(pieces)
        starts = [piece[PIECE_HEAD_BYTES : PIECE_HEAD_BYTES + 32] for piece in pieces]
        assert all(start in received for start in starts), "the record is of what hosts receive"
        assert leaks(received) == []
        assert [path for path, piece in zip(hosts.piece_files(number), pieces, strict=True) if leaks(piece)] == []
        for top, _, names in os.walk(hosts.homes[number]):
            for name in names:
                assert leaks(os.fsencode(name) + b"\0" + Path(top, name).read_bytes()) == [], f"{top}/{name}"
    assert storing >= 3, "three copies are on three hosts; chance may leave the others without"
    assert len(sniffer.seen) > stored_bytes
    assert leaks(bytes(sniffer.seen)) == []


def test_stored_bytes_look_like_noise_and_no_two_are_alike(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "drive"), seeds=hosts.seeds) as drive:
        Path(drive.path, "regular").write_bytes(b"the same line again and again\n" * 600_000)
        write_stream(os.path.join(drive.path, "other"), 5 * MIB)
        drive.sync()
    chunks: Counter[bytes] = Counter()
    for number in range(5):
        for path in hosts.piece_files(number):
            piece = Path(path).read_bytes()
            assert len(zlib.compress(piece, 1)) >= len(piece), f"{path} compresses"
            assert entropy(piece) > 7.9 or len(piece) < 4096
            chunks.update(piece[start : start + 32] for start in range(PIECE_HEAD_BYTES, len(piece) - 32, 32))
    assert chunks
    assert max(chunks.values()) == 1, "copies of one shard can be told from each other, and told together, by nobody"


def entropy(data: bytes) -> float:
    """Bits per byte."""
    return -sum(count / len(data) * math.log2(count / len(data)) for count in Counter(data).values())


def flip_a_bit(path: str, dice: random.Random) -> None:
    """Change one bit of a file, leaving its times as they are: what a tired disk does."""
    times = os.stat(path)
    with open(path, "r+b") as file:
        place = dice.randrange(times.st_size)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << dice.randrange(8)]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_flipped_bit_is_detected_another_copy_used_and_status_says_so(hosts: HostNetwork, tmp_path: Path) -> None:
    tree = str(tmp_path / "tree")
    source_tree(tree, 100)
    write_stream(os.path.join(tree, "large"), 32 * MIB + 5)
    with Drive(str(tmp_path / "drive"), seeds=hosts.seeds) as drive:
        copy = os.path.join(drive.path, "tree")
        run("rsync", "-a", f"{tree}/", f"{copy}/")
        drive.make_safe(*files_below(copy))
        drive.umount()
        drive.drop_cache()
        for path in two_of_three_copies(drive, hosts, copy):
            flip_a_bit(path, random.Random(os.path.basename(path)))
        drive.mount()
        assert differences(tree, copy) == ""
        problems = " ".join(drive.status()["problems"])
        assert problems, "status reports what was found"
        assert drive.state(os.path.join(copy, "large")) in {"safe", "degraded", "cached"}


def two_of_three_copies(drive: Drive, hosts: HostNetwork, copy: str) -> list[str]:
    """Piece files of all but one copy of every shard, so that nearly every first choice of a reader is a bad one."""
    drive.mount()
    manifests = [drive.manifest(path) for path in files_below(copy)]
    shards = {
        shard["id"]: [piece["id"] for piece in shard["pieces"]]
        for manifest in manifests
        for shard in manifest["shards"]
    }
    drive.umount()
    where = {os.path.basename(path): path for number in range(5) for path in hosts.piece_files(number)}
    return [where[piece] for pieces in shards.values() for piece in pieces[:2]]
