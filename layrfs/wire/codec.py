"""msgpack through msgspec: typed structs out, typed structs in, nothing else gets past.

Decoding checks the size first, then the shape against the type, so that what comes out needs no further `isinstance`.
"""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, TypeVar, overload

import msgspec

from layrfs.errors import BadMessage

T = TypeVar("T")

Uint16 = Annotated[int, msgspec.Meta(ge=0, lt=2**16)]
Uint32 = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Uint63 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""Sizes and times: what SQLite, msgpack and C's off_t all hold."""

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[object, msgspec.msgpack.Decoder[Any]] = {}


def encode(value: msgspec.Struct) -> bytes:
    """The struct as msgpack, integers in their shortest form, fields in the order of their declaration."""
    return _encoder.encode(value)


@overload
def decode_untrusted(kind: type[T], data: bytes | bytearray | memoryview, *, limit: int) -> T: ...
@overload
def decode_untrusted(kind: UnionType, data: bytes | bytearray | memoryview, *, limit: int) -> Any: ...
def decode_untrusted(kind: type[T] | UnionType, data: bytes | bytearray | memoryview, *, limit: int) -> Any:
    """A `kind` (a struct or a union of tagged ones) from a stranger's bytes, at most `limit` of them; or BadMessage."""
    if len(data) > limit:
        raise BadMessage(f"a message of {len(data)} bytes where {limit} is the limit")
    try:
        return _decoder(kind).decode(data)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise BadMessage(f"a message is not what the protocol says: {error}") from None


def _decoder(kind: type[T] | UnionType) -> msgspec.msgpack.Decoder[Any]:
    """Building a decoder costs more than using it: one for each type, and types are few."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    return decoder
