"""Into blocks of what size a file is cut: by size (the default), or into a constant number of shards.

The answer is asked once, when a file gets its first content, and then is a property of the inode.
"""

from __future__ import annotations

import re

import msgspec

from layrfs.errors import UsageError

MIN_BLOCK_BYTES = 64 * 1024
MAX_BLOCK_BYTES = 4 * 1024 * 1024
BLOCK_STEP_BYTES = 4096
MAX_COUNT = 65536

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}
_SIZE = re.compile(r"size:([0-9]{1,9})([KM]?)", re.ASCII)
_COUNT = re.compile(r"count:([0-9]{1,9})", re.ASCII)


class Sharding(msgspec.Struct, frozen=True):
    """Exactly one of the two is not zero: the block size in bytes, or the number of shards a file shall have."""

    size_bytes: int = 0
    count: int = 0

    @classmethod
    def parse(cls, text: str) -> Sharding:
        """`size:4M` (a multiple of 4K from 64K to 4M) or `count:8` (1 to 65536). Raises UsageError."""
        by_size, by_count = _SIZE.fullmatch(text.strip()), _COUNT.fullmatch(text.strip())
        if by_size:
            size = int(by_size[1]) * _UNITS[by_size[2]]
            if MIN_BLOCK_BYTES <= size <= MAX_BLOCK_BYTES and size % BLOCK_STEP_BYTES == 0:
                return cls(size_bytes=size)
        elif by_count and 1 <= int(by_count[1]) <= MAX_COUNT:
            return cls(count=int(by_count[1]))
        raise UsageError(
            f"sharding is size:N (a multiple of 4K from 64K to 4M) or count:N (1 to {MAX_COUNT}), not {text!r}"
        )

    @classmethod
    def of_attribute(cls, value: bytes | None) -> Sharding:
        """What a file's attribute says; the default without one, and for one that says nothing sensible."""
        try:
            return DEFAULT_SHARDING if value is None else cls.parse(value.decode("ascii", "replace"))
        except UsageError:
            return DEFAULT_SHARDING

    def block_bytes(self, file_size: int) -> int:
        """The block size for a file of this many bytes: a multiple of 4 KiB from 64 KiB to 4 MiB.

        With `count`, files so small or so large that the limits are reached get fewer or more shards than asked for.
        """
        if not self.count:
            return self.size_bytes
        even = -(-max(file_size, 0) // self.count)
        rounded = -(-even // BLOCK_STEP_BYTES) * BLOCK_STEP_BYTES
        return min(max(rounded, MIN_BLOCK_BYTES), MAX_BLOCK_BYTES)

    def __str__(self) -> str:
        if self.count:
            return f"count:{self.count}"
        if self.size_bytes % (1 << 20) == 0:
            return f"size:{self.size_bytes >> 20}M"
        return f"size:{self.size_bytes >> 10}K"


DEFAULT_SHARDING = Sharding(size_bytes=MAX_BLOCK_BYTES)
