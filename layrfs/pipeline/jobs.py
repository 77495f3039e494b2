"""What the main process and its workers say to each other over a socket pair: small messages, never bulk bytes.

Owns the shapes and their framing (`u32 length | msgpack`). A job has a number; every message about it carries it.
main -> worker: `Start` once, then jobs, answers to what a job asked, `Cancel`.
worker -> main: a job's questions and news of its pieces, then exactly one `Done` or `Failed`.
Keys travel here and nowhere else: never in arguments or the environment, which other processes may read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

import msgspec

from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import (
    BadMessage,
    LayrError,
    LocalError,
    NoSpace,
    Unavailable,
    WorkerLost,
)
from layrfs.ids import NodeId, PieceId, VolumeId
from layrfs.model.answers import PieceAnswer
from layrfs.model.notes import CONTENT, Purpose
from layrfs.model.payables import PieceDigests, Salts
from layrfs.model.records import HostAddress
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.transfers import Examined, Slot, SourcePart, TargetPart, Uploaded
from layrfs.policy.hedging import Hedge
from layrfs.wire.codec import decode_untrusted, encode

MESSAGE_LIMIT_BYTES = 16 << 20
"""8,192 parts with long paths fit; a length beyond it means the stream is garbage."""

Outcome = Literal["good", "late", "wrong", "misfit", "missing", "refused", "unreachable"]
"""``misfit``: the very piece that is on record, and not of the shard: the record is at fault, and not the host."""


class WorkerKeys(msgspec.Struct, frozen=True):
    """What sealing, masking and TLS need. The root key, which signs for the volume, stays in the main process.

    Without `content` and `digest` pieces can be made of others, and nothing else.
    """

    content: bytes
    mask: bytes
    digest: bytes
    volume: VolumeId
    node_private: bytes
    network_id: bytes

    @classmethod
    def of(cls, keys: VolumeKeys, node_private: bytes, network_id: bytes) -> WorkerKeys:
        """The part of a volume's keys that workers need, and who they are in which network."""
        return cls(keys.content, keys.mask, keys.digest_key, keys.volume_id, node_private, network_id)

    @classmethod
    def for_repair(cls, mask: bytes, volume: VolumeId, node_private: bytes, network_id: bytes) -> WorkerKeys:
        """What a delegate's workers need: no key of contents, which they could neither read nor write."""
        return cls(b"", mask, b"", volume, node_private, network_id)

    def __repr__(self) -> str:
        return f"WorkerKeys(volume={self.volume.hex()})"


class Start(msgspec.Struct, frozen=True, tag="start"):
    """The first message a worker gets."""

    keys: WorkerKeys


class Candidate(msgspec.Struct, frozen=True):
    """A copy that can be asked for: which piece, where."""

    piece: PieceRecord
    address: HostAddress
    answers: int = 0
    """So many are to be made of the piece when it comes."""
    salts: Salts | None = None
    """What it is to be digested under when it comes."""


class FetchPlan(msgspec.Struct, frozen=True):
    """Candidates in the order to ask them; the next is asked too when the last is late."""

    shard: ShardRecord
    candidates: tuple[Candidate, ...]
    hedge: Hedge
    deadline_seconds: float


class TargetFile(msgspec.Struct, frozen=True):
    """Where a whole payload goes."""

    path: str
    offset: int


class Upload(msgspec.Struct, frozen=True, tag="upload"):
    """Seal these parts and place the pieces."""

    job: int
    parts: tuple[SourcePart, ...]
    redundancy: Redundancy
    purpose: Purpose = CONTENT
    together: bool = True
    """Whether large pieces go out at the same time, or one after the other."""
    answers: int = 0
    """So many are made of each piece."""


class Download(msgspec.Struct, frozen=True, tag="download"):
    """Fetch a shard and fill the targets."""

    job: int
    plan: FetchPlan
    targets: tuple[TargetPart, ...]


class Examine(msgspec.Struct, frozen=True, tag="examine"):
    """Fetch a shard and tell what it says of itself; put its payload into a file, when there is one."""

    job: int
    plan: FetchPlan
    target: TargetFile | None


class TopUp(msgspec.Struct, frozen=True, tag="top up"):
    """Fetch a shard and place more pieces of it."""

    job: int
    plan: FetchPlan
    slots: tuple[Slot, ...]
    purpose: Purpose = CONTENT
    together: bool = True
    answers: int = 0


class Identify(msgspec.Struct, frozen=True, tag="identify"):
    """Fetch a shard and tell the ids of the pieces that these slots make, and their digests under these salts."""

    job: int
    plan: FetchPlan
    slots: tuple[Slot, ...]
    salts: tuple[Salts, ...] = ()
    """None, or as many as slots."""


class Discard(msgspec.Struct, frozen=True, tag="discard"):
    """Ask hosts to forget pieces, as far as they can be reached."""

    job: int
    pieces: tuple[tuple[HostAddress, PieceId], ...]


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """End the job soon; it still answers `Done` or `Failed`."""

    job: int


class ContentQuestion(msgspec.Struct, frozen=True, tag="find content"):
    """Which of these blocks does the volume store already? `question` tells several questions of one job apart."""

    job: int
    question: int
    digests: tuple[bytes, ...]


class ContentAnswer(msgspec.Struct, frozen=True, tag="found content"):
    """(digest, content number, length) of those that are stored."""

    job: int
    question: int
    found: tuple[tuple[bytes, int, int], ...]


class Wish(msgspec.Struct, frozen=True):
    """A piece that needs a host; `failed` is the one that was tried last, and `outcome` what it did."""

    slot: Slot
    piece: PieceId
    piece_bytes: int
    failed: NodeId | None = None
    outcome: Outcome = "good"


class PlacesQuestion(msgspec.Struct, frozen=True, tag="find places"):
    """Where can these pieces go?"""

    job: int
    question: int
    wishes: tuple[Wish, ...]


class Place(msgspec.Struct, frozen=True):
    """Where a piece can go, and what it is to be digested under if that host is paid."""

    host: HostAddress
    salts: Salts | None = None


class PlacesAnswer(msgspec.Struct, frozen=True, tag="found places"):
    """One answer per wish; None when no host is left for it."""

    job: int
    question: int
    places: tuple[Place | None, ...]


class Moving(msgspec.Struct, frozen=True, tag="moving"):
    """Bytes of the job's pieces arrive at hosts; said about once a second while that takes long."""

    job: int


class Tried(msgspec.Struct, frozen=True, tag="tried"):
    """A host has one of the job's pieces now, or (not ``well``) has not, after so long."""

    job: int
    piece_bytes: int
    seconds: float
    well: bool


class Attempt(msgspec.Struct, frozen=True):
    """What came of asking one host for one piece."""

    piece: PieceId
    host: NodeId
    outcome: Outcome
    seconds: float
    answers: tuple[PieceAnswer, ...] = ()
    """Made of the piece, when it was good."""
    digests: PieceDigests | None = None
    """Likewise."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The job's result: each kind of job fills in its own.

    Fetches tell their attempts, uploads those that they did not wait for."""

    job: int
    uploaded: Uploaded | None = None
    examined: Examined | None = None
    pieces: tuple[PieceRecord, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    answers: tuple[PieceAnswer, ...] = ()
    """Of pieces that hosts have now."""
    digests: tuple[PieceDigests, ...] = ()
    """Likewise."""
    ids: tuple[PieceId, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The job ended without a result: the name of one of our errors, and its sentence."""

    job: int
    kind: str
    sentence: str
    attempts: tuple[Attempt, ...] = ()

    def error(self) -> LayrError:
        """The error to raise in the main process."""
        return _ERRORS.get(self.kind, LocalError)(self.sentence)


Job = Upload | Download | Examine | TopUp | Identify | Discard
Question = ContentQuestion | PlacesQuestion
Answer = ContentAnswer | PlacesAnswer
ToWorker = Start | Upload | Download | Examine | TopUp | Identify | Discard | Cancel | ContentAnswer | PlacesAnswer
News = Moving | Tried
FromWorker = ContentQuestion | PlacesQuestion | Moving | Tried | Done | Failed

_ERRORS: dict[str, type[LayrError]] = {
    error.__name__: error for error in (Unavailable, LocalError, NoSpace, WorkerLost)
}
_LENGTH = struct.Struct("<I")


def pack(message: ToWorker | FromWorker) -> bytes:
    """A message as it goes over the socket."""
    body = encode(message)
    return _LENGTH.pack(len(body)) + body


def to_worker_untrusted(body: bytes) -> ToWorker:
    """What the main process said; BadMessage for anything else."""
    message: ToWorker = decode_untrusted(ToWorker, body, limit=MESSAGE_LIMIT_BYTES)
    return message


def from_worker_untrusted(body: bytes) -> FromWorker:
    """What a worker said; BadMessage for anything else."""
    message: FromWorker = decode_untrusted(FromWorker, body, limit=MESSAGE_LIMIT_BYTES)
    return message


class Unpacker:
    """Cuts a stream into message bodies: `feed` what arrived, then take what `bodies` gives."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes as they came from the socket."""
        self._held += data

    def bodies_untrusted(self) -> Iterator[bytes]:
        """Every complete body; BadMessage when a length is impossible."""
        at = 0
        while len(self._held) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._held, at)
            if length > MESSAGE_LIMIT_BYTES:
                raise BadMessage(f"a message of {length} bytes between our own processes")
            if len(self._held) - at - _LENGTH.size < length:
                break
            at += _LENGTH.size + length
            yield bytes(self._held[at - length : at])
        del self._held[:at]
