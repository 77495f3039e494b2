"""Hosts that lie. Each is a real host (TLS, DHT, admission) of which one part does another thing than it says.

    python -m tests.hosts.liars LIE host run …      everything after LIE is a `layrfs` command line

Owns the lies and their names (`LIES`): most are about what is kept, some about what is said, one about how. Must not
know what finds them: tests/hosts/test_liars.py and docs/reliability.md do.
Invariant: a liar knows nothing that a real one could not know.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

import layrfs.app.serving
from layrfs.cli.main import dispatch
from layrfs.cli.outcome import run_command
from layrfs.crypto import merkle
from layrfs.crypto.digests import Buffer
from layrfs.crypto.identity import NodeIdentity
from layrfs.host.service import HostService
from layrfs.ids import NodeId, PieceId
from layrfs.model.records import HostAddress
from layrfs.network.connections import Cancellation, ConnectionPool
from layrfs.network.frame_stream import FrameStream
from layrfs.network.piece_server import Answer, Counts, Limits, PieceServer, Visit
from layrfs.storage.piece_ranges import LeafReads
from layrfs.storage.piece_store import PieceStore
from layrfs.storage.root_store import RootStore
from layrfs.wire import messages
from layrfs.wire.codec import encode
from layrfs.wire.frames import pack_prefix
from layrfs.wire.messages import Request
from tests.hosts.local_host import NETWORK, SPACE_BYTES, LocalHost, serving

LEAF_BYTES = merkle.LEAF_BYTES
NOISE = random.Random(5).randbytes(300)

# --- what is kept ----------------------------------------------------------------------------------------------------


class Kept(msgspec.Struct, frozen=True):
    """What a liar has of a piece: leaf hashes, and bytes that need not be those that it was given."""

    piece: PieceId
    data: bytes
    hashes: list[bytes]

    def but(self, data: bytes) -> Kept:
        """Other bytes under the same hashes."""
        return Kept(self.piece, data, self.hashes)


class Hoard(PieceStore):
    """Acknowledges every piece and keeps of it, in memory, what `keep` says; asked about it, it has everything."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)
        self._kept: dict[PieceId, Kept] = {}

    def keep(self, given: Kept) -> Kept | None:
        """What is left of a piece when it was acknowledged: here, all of it."""
        return given

    def kept(self, piece: PieceId) -> Kept | None:
        """What there is now."""
        return self._kept.get(piece)

    def put(self, piece: PieceId, data: Buffer, _tenant: bytes, _note: bytes = b"") -> None:
        kept = self.keep(Kept(piece, bytes(data), merkle.leaf_hashes(data)))
        if kept is not None:
            self._kept[piece] = kept

    def has(self, _piece: PieceId) -> bool:
        return True

    def renew(self, _piece: PieceId, _tenant: bytes) -> bool:
        return True

    def delete(self, piece: PieceId, _tenant: bytes) -> bool:
        return self._kept.pop(piece, None) is not None

    def read(self, piece: PieceId) -> bytes | None:
        kept = self.kept(piece)
        return kept.data if kept else None

    def read_leaves(self, piece: PieceId, choose: Callable[[int], Sequence[int]]) -> LeafReads | None:
        kept = self.kept(piece)
        if kept is None:
            return None
        numbers = tuple(choose(len(kept.data)))
        leaves = tuple(kept.data[number * LEAF_BYTES : (number + 1) * LEAF_BYTES] for number in numbers)
        return LeafReads(len(kept.data), numbers, leaves, kept.hashes)


class HashesOnly(Hoard):
    """Names, lengths and trees: 2 % of what is paid for."""

    def keep(self, given: Kept) -> Kept:
        return given.but(bytes(len(given.data)))


class MostLeaves(Hoard):
    """All but one leaf of a hundred, drawn anew for each piece; all hashes."""

    MISSING_SHARE = 0.01

    def keep(self, given: Kept) -> Kept:
        dice, data = random.Random(given.piece), bytearray(given.data)
        for at in range(0, len(data), LEAF_BYTES):
            if dice.random() < self.MISSING_SHARE:
                data[at : at + LEAF_BYTES] = bytes(len(data[at : at + LEAF_BYTES]))
        return given.but(bytes(data))


class HalfTruncated(Hoard):
    """The first half of each piece, and says that it is all of it."""

    def keep(self, given: Kept) -> Kept:
        half = given.data[: len(given.data) // 2]
        return Kept(given.piece, half, merkle.leaf_hashes(half))


class Stale(Hoard):
    """Of every piece an older one, with its true tree, as if the newer had never arrived."""

    def keep(self, given: Kept) -> Kept:
        return next(iter(self._kept.values()), given)


class Forgets(Hoard):
    """Acknowledges, and has nothing."""

    def keep(self, _given: Kept) -> None:
        return None


class ForgetsLater(Hoard):
    """Keeps everything for a month after it was stored, of `LIAR_MONTH_SECONDS` by the store's clock."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)
        self._until: dict[PieceId, float] = {}

    def keep(self, given: Kept) -> Kept:
        self._until[given.piece] = self._now() + float(os.environ.get("LIAR_MONTH_SECONDS", str(30 * 86400)))
        return given

    def kept(self, piece: PieceId) -> Kept | None:
        return super().kept(piece) if self._now() < self._until.get(piece, 0.0) else None


class OneOfThree(Hoard):
    """Serves several hosts at once, and keeps one of every three pieces of a length: copies of a shard, surely.

    Which belong together it has to guess, by length and time; we let it guess right.
    """

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)
        self._offered: dict[int, list[Kept]] = {}

    def keep(self, given: Kept) -> Kept:
        alike = self._offered.setdefault(len(given.data), [])
        alike.append(given if len(alike) % 3 == 0 else given.but(alike[-1].data))
        return alike[-1]


# --- what is said ----------------------------------------------------------------------------------------------------


class RefusesRetrieval(HostService):
    """Keeps everything, proves everything, gives nothing back."""

    def answer(self, visit: Visit, request: Request, body: memoryview) -> Answer:
        refused = isinstance(request, messages.Retrieve)
        return Answer(messages.Refused("busy")) if refused else super().answer(visit, request, body)


class Relays(HostService):
    """Has nothing of its own: what it is asked it asks the host at `LIAR_ELSEWHERE` (node id, ip, port)."""

    def answer(self, visit: Visit, request: Request, body: memoryview) -> Answer:
        if isinstance(request, messages.PutRoot | messages.GetRoot):
            return super().answer(visit, request, body)
        node_id, ip, port = os.environ["LIAR_ELSEWHERE"].split()
        elsewhere = HostAddress(NodeId(bytes.fromhex(node_id)), ip, int(port))
        deadline = time.monotonic() + 10
        pool = ConnectionPool(NodeIdentity.generate(), self._host.network_id)
        connection = pool.connect(elsewhere, deadline, Cancellation())
        with contextlib.closing(connection.stream):
            header, body_bytes = connection.ask(request, body, deadline)
            answer = bytearray(body_bytes)
            connection.stream.receive_into(memoryview(answer), deadline)
        return Answer(header, answer)


class Shown(msgspec.Struct, frozen=True):
    """A true answer to a challenge, before it goes out."""

    asked: messages.Prove
    proven: messages.Proven
    leaves: bytes
    again: Callable[[messages.Prove], Answer]
    """What another challenge would have got."""


class Spoils(HostService):
    """Keeps everything and gives it back; `spoil` says what becomes of proofs."""

    def spoil(self, shown: Shown) -> Answer:
        """What is sent; the truth, unless somebody thinks of something else."""
        return Answer(shown.proven, shown.leaves)

    def answer(self, visit: Visit, request: Request, body: memoryview) -> Answer:
        truth = super().answer(visit, request, body)
        if not isinstance(request, messages.Prove) or not isinstance(truth.header, messages.Proven):
            return truth
        again = partial(super().answer, visit, body=body)
        return self.spoil(Shown(request, truth.header, bytes(truth.body), again))


class MalformedProofs(Spoils):
    """Right leaves, and each proof lacks its last hash."""

    def spoil(self, shown: Shown) -> Answer:
        proofs = tuple(proof[:-1] for proof in shown.proven.proofs)
        return Answer(messages.Proven(shown.proven.piece_bytes, proofs), shown.leaves)


class OtherNonce(Spoils):
    """True leaves with true proofs: those of a nonce of its own choice, which it could keep and delete the rest."""

    def spoil(self, shown: Shown) -> Answer:
        return shown.again(messages.Prove(shown.asked.piece, bytes(32), shown.asked.leaves))


class OutOfRange(Spoils):
    """Says that the piece is so long that the leaves asked for are others."""

    def spoil(self, shown: Shown) -> Answer:
        return Answer(messages.Proven(shown.proven.piece_bytes * 1000, shown.proven.proofs), shown.leaves)


class TooManyLeaves(Spoils):
    """Whatever was asked for is among it."""

    def spoil(self, shown: Shown) -> Answer:
        return Answer(shown.proven, shown.leaves * 200)


class WrongDigests(HostService):
    """Proves everything by leaves, and answers with digests that it made up."""

    def answer(self, visit: Visit, request: Request, body: memoryview) -> Answer:
        made_up = isinstance(request, messages.Answer)
        return Answer(messages.Answered(os.urandom(32))) if made_up else super().answer(visit, request, body)


# --- how it is said --------------------------------------------------------------------------------------------------


class ByteByByte(PieceServer):
    """Keeps everything; what shows that goes out one byte at a time, so that something always arrives."""

    PAUSE_SECONDS = 0.05

    def _send(self, stream: FrameStream, answer: Answer) -> None:
        if not isinstance(answer.header, messages.Retrieved | messages.Proven):
            super()._send(stream, answer)
            return
        header = encode(answer.header)
        frame = pack_prefix(len(header), len(answer.body)) + header + bytes(answer.body)
        for at in range(len(frame)):
            stream._send_all(memoryview(frame)[at : at + 1], time.monotonic() + 10)
            if self._closing.wait(self.PAUSE_SECONDS):
                return


class Garbage(PieceServer):
    """Keeps nothing that matters: what would show it is noise."""

    def _send(self, stream: FrameStream, answer: Answer) -> None:
        if isinstance(answer.header, messages.Retrieved | messages.Proven):
            stream._send_all(memoryview(NOISE), time.monotonic() + 10)
        else:
            super()._send(stream, answer)


# --- all of them -----------------------------------------------------------------------------------------------------


class Lie(msgspec.Struct, frozen=True):
    """The parts of a host; what is not named is honest."""

    store: type[PieceStore] = PieceStore
    service: type[HostService] = HostService
    server: type[PieceServer] = PieceServer


LIES = {
    "nothing": Lie(),
    "hashes only": Lie(store=HashesOnly),
    "99 percent": Lie(store=MostLeaves),
    "one of three": Lie(store=OneOfThree),
    "truncated": Lie(store=HalfTruncated),
    "stale": Lie(store=Stale),
    "forgets": Lie(store=Forgets),
    "forgets later": Lie(store=ForgetsLater),
    "refuses retrieval": Lie(store=Hoard, service=RefusesRetrieval),
    "relays": Lie(service=Relays),
    "malformed proofs": Lie(store=Hoard, service=MalformedProofs),
    "other nonce": Lie(store=Hoard, service=OtherNonce),
    "out of range": Lie(store=Hoard, service=OutOfRange),
    "too many leaves": Lie(store=Hoard, service=TooManyLeaves),
    "wrong digests": Lie(store=Hoard, service=WrongDigests),
    "byte by byte": Lie(store=Hoard, server=ByteByByte),
    "garbage": Lie(store=Hoard, server=Garbage),
}


@contextlib.contextmanager
def lying_host(directory: Path, lie: str, *, store: PieceStore | None = None) -> Iterator[LocalHost]:
    """In this process, without the DHT. Several hosts may share a `store`."""
    parts, identity, limits, counts = LIES[lie], NodeIdentity.generate(), Limits(), Counts()
    store = store or parts.store(str(directory), space_bytes=SPACE_BYTES)
    service = parts.service(identity, NETWORK, store, RootStore(str(directory)), limits=limits, dropped=counts)
    with serving(service, counts, identity=identity, limits=limits, server=parts.server) as host:
        yield host


if __name__ == "__main__":
    LIE = LIES[sys.argv[1]]
    layrfs.app.serving.PieceStore = LIE.store
    layrfs.app.serving.HostService = LIE.service
    layrfs.app.serving.PieceServer = LIE.server
    sys.exit(run_command("layrfs", lambda: dispatch(sys.argv[2:])))
