"""Files put together from nothing but the parts that shards say they hold. Pure.

No names, no sizes, and nobody who says which parts belong to one version of a file: the newest of each block is taken.
What is not known is not made up. A block that is not there may be a hole, or equal to another block and therefore
stored under another file, or lost; so a file ends before it, and what follows becomes a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

import msgspec


class FoundPart(NamedTuple):
    """One block of a file as some shard has it; `stored` in Unix seconds, `content` where it is recorded now."""

    block_bytes: int
    block: int
    stored: int
    content: int
    length: int


class RescuedFile(msgspec.Struct, frozen=True):
    """What can be vouched for: `blocks` are of number, content and length, with no gap from 0 on."""

    name: str
    block_bytes: int
    size: int
    stored: int
    blocks: tuple[tuple[int, int, int], ...]


def rescued_files(inode: int, parts: Iterable[FoundPart]) -> list[RescuedFile]:
    """The runs of a file's blocks that are known without a gap.

    The run from the file's beginning is called by the inode's number, another `INODE@OFFSET`. Blocks of another size
    than the newest part's are of a time when the file was another one: `INODE+SIZE@OFFSET`.
    """
    newest = {(part.block_bytes, part.block): part for part in sorted(parts, key=_age)}
    if not newest:
        return []
    current = max(newest.values(), key=_age).block_bytes
    files = []
    for _, run in groupby(enumerate(sorted(newest)), key=lambda each: (each[1][0], each[1][1] - each[0])):
        files.append(_file(inode, current, [newest[key] for _, key in run]))
    return files


def _age(part: FoundPart) -> tuple[int, int]:
    """Of two stored in the same second the one recorded later."""
    return part.stored, part.content


def _file(inode: int, current: int, run: list[FoundPart]) -> RescuedFile:
    first, last = run[0], run[-1]
    offset = first.block * first.block_bytes
    version = "" if first.block_bytes == current else f"+{first.block_bytes}"
    place = f"@{offset}" if offset else ""
    blocks = tuple((part.block - first.block, part.content, part.length) for part in run)
    size = (last.block - first.block) * first.block_bytes + last.length
    return RescuedFile(f"{inode}{version}{place}", first.block_bytes, size, max(part.stored for part in run), blocks)
