"""Frames on a stream: `u32 header_bytes | u32 body_bytes | header | body`, little-endian.

The header is a msgpack message, the body raw bytes of a piece. The prefix alone decides how much is read, and both
limits are checked before a byte of memory is set aside.
"""

from __future__ import annotations

import struct

from layrfs.errors import BadMessage

HEADER_LIMIT = 64 * 1024
BODY_LIMIT = 5 * 1024 * 1024
"""A sealed shard is at most 4 MiB of payload, its table and some framing; 5 MiB leaves room and no more."""

_PREFIX = struct.Struct("<II")
PREFIX_BYTES = _PREFIX.size


def pack_prefix(header_bytes: int, body_bytes: int) -> bytes:
    """The eight bytes before a header and a body; ValueError beyond the limits, which would be our own mistake."""
    if not (0 < header_bytes <= HEADER_LIMIT and 0 <= body_bytes <= BODY_LIMIT):
        raise ValueError(f"a frame of {header_bytes} + {body_bytes} bytes is not allowed")
    return _PREFIX.pack(header_bytes, body_bytes)


def parse_prefix_untrusted(prefix: bytes | bytearray | memoryview) -> tuple[int, int]:
    """(header bytes, body bytes) of the frame that follows; BadMessage unless both are within the limits."""
    if len(prefix) != PREFIX_BYTES:
        raise BadMessage("a frame was cut off in its first bytes")
    header_bytes, body_bytes = _PREFIX.unpack(prefix)
    if not 0 < header_bytes <= HEADER_LIMIT or body_bytes > BODY_LIMIT:
        raise BadMessage(f"a frame announces {header_bytes} + {body_bytes} bytes, more than the protocol allows")
    return header_bytes, body_bytes
