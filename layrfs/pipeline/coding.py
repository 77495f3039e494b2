"""A sealed shard <-> the pieces that hosts keep: copies of it, or fragments of a Reed-Solomon code, under masks.

Owns redundancy's arithmetic on bytes; the code itself is ISA-L's, through pyeclib. Must not know plaintext or hosts.
Whoever holds the mask key can do all of this and read nothing: it is what repair needs.
Invariant: the piece of a slot is always the same bytes, whichever pieces it was made anew from.

pyeclib puts a header of its own before each fragment. No piece has one: it says nothing that the slot does not, and the
library, which trusts it, must never see one that a stranger wrote. To decode, headers are taken from a shard of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec
from pyeclib.ec_iface import ECDriver, ECDriverError

from layrfs.crypto.digests import Buffer
from layrfs.crypto.keys import mask_key
from layrfs.crypto.mask import apply_mask_into
from layrfs.crypto.merkle import piece_id
from layrfs.errors import WrongBytes
from layrfs.ids import PieceId, Salt
from layrfs.model.redundancy import FRAGMENT_STEP_BYTES, Redundancy
from layrfs.pipeline.transfers import Slot

CODE = "isa_l_rs_cauchy"
"""Every square part of a Cauchy matrix has an inverse, so any `needed` fragments do. ISA-L's Vandermonde has not."""

END = 0x80
"""Behind the shard, with zeros after it: so that its length need not be known to bring it back."""

_HEADER_BYTES = 80


class Piece(msgspec.Struct, frozen=True):
    """One piece in memory, ready for a host; `note` is what the host shows with it."""

    slot: Slot
    id: PieceId
    data: bytearray
    note: bytes = b""


def make_pieces(mask: bytes, salt: Salt, redundancy: Redundancy, slots: Sequence[Slot], sealed: Buffer) -> list[Piece]:
    """The pieces for `slots`: each under a mask of its own, so that no two hosts hold the same bytes."""
    if redundancy.mirrors:
        return [_masked(mask, salt, slot, sealed) for slot in slots]
    coded = _coded(redundancy, sealed)
    return [_masked(mask, salt, slot, _payload(coded[slot.position])) for slot in slots]


def unmask(mask: bytes, salt: Salt, slot: Slot, data: bytearray) -> None:
    """Turn a (verified) piece for `slot` into the fragment it was made of, in its own place."""
    apply_mask_into(mask_key(mask, salt, slot.position, slot.generation), data, data)


def sealed_of(redundancy: Redundancy, fragments: Mapping[int, Buffer]) -> Buffer:
    """The sealed shard, from at least `needed` fragments by position. Raises WrongBytes when they are of no shard.

    Fragments of different shards, or changed ones, mostly give some bytes all the same: whoever calls opens them.
    """
    if redundancy.mirrors:
        return next(iter(fragments.values()))
    used = dict(sorted(fragments.items())[: redundancy.needed])
    length = min(map(len, used.values()))
    if not length or length % FRAGMENT_STEP_BYTES or any(len(fragment) != length for fragment in used.values()):
        raise WrongBytes("pieces of a shard have lengths that do not fit together")
    if max(used) < redundancy.needed:  # the shard itself, cut
        return _without_end(b"".join(used.values()))
    return _without_end(_decoded(redundancy, used, length))


def disagreeing(redundancy: Redundancy, fragments: Mapping[int, Buffer], sealed: Buffer) -> set[int]:
    """The positions of those fragments that are not of this shard."""
    coded = _coded(redundancy, sealed)
    return {position for position, fragment in fragments.items() if _payload(coded[position]) != fragment}


def _masked(mask: bytes, salt: Salt, slot: Slot, fragment: Buffer) -> Piece:
    data = bytearray(len(fragment))
    apply_mask_into(mask_key(mask, salt, slot.position, slot.generation), fragment, data)
    return Piece(slot, piece_id(data), data)


def _coded(redundancy: Redundancy, sealed: Buffer) -> list[bytes]:
    """All fragments, with the library's headers."""
    padding = redundancy.needed * redundancy.piece_bytes(len(sealed)) - len(sealed) - 1
    return _driver(redundancy).encode(b"".join((sealed, bytes((END,)), bytes(padding))))


def _decoded(redundancy: Redundancy, fragments: Mapping[int, Buffer], length: int) -> bytes:
    headers = _headers(redundancy, length)
    try:
        # Bytes and nothing else: given another kind of buffer the library ends the process.
        return _driver(redundancy).decode([headers[at] + bytes(fragment) for at, fragment in fragments.items()])
    except ECDriverError as error:
        raise WrongBytes(f"pieces of a shard do not fit together: {error}") from None


def _without_end(padded: bytes) -> memoryview:
    end = len(padded.rstrip(b"\0")) - 1
    if end < 0 or padded[end] != END:
        raise WrongBytes("pieces of a shard do not fit together: there is no end")
    return memoryview(padded)[:end]


def _payload(fragment: bytes) -> memoryview:
    return memoryview(fragment)[_HEADER_BYTES:]


@lru_cache(maxsize=64)
def _driver(redundancy: Redundancy) -> ECDriver:
    return ECDriver(k=redundancy.needed, m=redundancy.total - redundancy.needed, ec_type=CODE)


@lru_cache(maxsize=64)
def _headers(redundancy: Redundancy, length: int) -> list[bytes]:
    """Of fragments of this length: they depend on nothing else."""
    return [coded[:_HEADER_BYTES] for coded in _driver(redundancy).encode(bytes(redundancy.needed * length))]
