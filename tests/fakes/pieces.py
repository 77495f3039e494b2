"""A piece store in memory: what handlers' tests use. Passes `tests/contracts/test_piece_store.py` like the real one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from layrfs.crypto import merkle
from layrfs.crypto.digests import Buffer
from layrfs.errors import NoSpace, NotPermitted, WrongBytes
from layrfs.ids import PieceId
from layrfs.storage.piece_ranges import LeafReads, RangeRead
from layrfs.wire.messages import LISTED_PER_MESSAGE, Listed


class MemoryPieces:
    """Pieces and their tenants in a dictionary, `space_bytes` of them at most."""

    def __init__(self, space_bytes: int) -> None:
        self.space_bytes = space_bytes
        self.kept: dict[PieceId, tuple[bytes, bytes]] = {}
        self.notes: dict[PieceId, bytes] = {}
        self.reserved = 0

    @contextlib.contextmanager
    def room(self, piece_bytes: int) -> Iterator[None]:
        if piece_bytes > self.free_bytes():
            raise NoSpace("full")
        self.reserved += piece_bytes
        try:
            yield
        finally:
            self.reserved -= piece_bytes

    def put(self, piece: PieceId, data: Buffer, tenant: bytes, note: bytes = b"") -> None:
        if merkle.piece_id(data) != piece:
            raise WrongBytes("not the piece")
        if self.kept.get(piece, (tenant, b""))[0] != tenant:
            raise NotPermitted("another tenant's")
        self.kept[piece] = (tenant, bytes(data))
        self.notes.setdefault(piece, note)

    def has(self, piece: PieceId) -> bool:
        return piece in self.kept

    def read(self, piece: PieceId) -> bytes | None:
        return self.kept[piece][1] if piece in self.kept else None

    def read_range(self, piece: PieceId, offset: int, length: int | None) -> RangeRead | None:
        if piece not in self.kept:
            return None
        data = self.kept[piece][1]
        hashes = merkle.leaf_hashes(data)
        first = min(offset // merkle.LEAF_BYTES, len(hashes) - 1)
        end = len(data) if length is None else min(len(data), offset + length)
        count = max(1, -(-end // merkle.LEAF_BYTES) - first)
        leaves = data[first * merkle.LEAF_BYTES : (first + count) * merkle.LEAF_BYTES]
        return RangeRead(len(data), first, leaves, tuple(merkle.prove(hashes, first, count)))

    def read_leaves(self, piece: PieceId, choose: Callable[[int], Sequence[int]]) -> LeafReads | None:
        if piece not in self.kept:
            return None
        data = self.kept[piece][1]
        numbers = tuple(choose(len(data)))
        leaves = (data[number * merkle.LEAF_BYTES : (number + 1) * merkle.LEAF_BYTES] for number in numbers)
        return LeafReads(len(data), numbers, tuple(leaves), merkle.leaf_hashes(data))

    def renew(self, piece: PieceId, tenant: bytes) -> bool:
        return self.kept.get(piece, (b"", b""))[0] == tenant

    def delete(self, piece: PieceId, tenant: bytes) -> bool:
        if self.kept.get(piece, (b"", b""))[0] != tenant:
            return False
        del self.kept[piece], self.notes[piece]
        return True

    def inventory(self, tenant: bytes, after: PieceId) -> tuple[list[Listed], PieceId | None]:
        ids = sorted(piece for piece, (whose, _) in self.kept.items() if whose == tenant and piece > after)
        listed = [Listed(piece, 0, self.notes[piece]) for piece in ids[:LISTED_PER_MESSAGE]]
        return listed, ids[LISTED_PER_MESSAGE - 1] if len(ids) > LISTED_PER_MESSAGE else None

    def free_bytes(self) -> int:
        return self.space_bytes - self.reserved - sum(len(data) for _, data in self.kept.values())
