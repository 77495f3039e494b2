"""Databases with something wrong in them: what a disk may do to a file."""

import os
import random
from collections.abc import Callable

import apsw

PAGE_BYTES = 4096
Damage = Callable[[random.Random, bytes, bytes], bytes]
"""From dice, a page and another page of the file: what is found in its place."""


def _noise(dice: random.Random, _page: bytes, _other: bytes) -> bytes:
    return dice.randbytes(PAGE_BYTES)


def _zeros(_dice: random.Random, _page: bytes, _other: bytes) -> bytes:
    return bytes(PAGE_BYTES)


def _another(_dice: random.Random, _page: bytes, other: bytes) -> bytes:
    return other


def _one_bit(dice: random.Random, page: bytes, _other: bytes) -> bytes:
    changed = bytearray(page)
    changed[dice.randrange(PAGE_BYTES)] ^= 1 << dice.randrange(8)
    return bytes(changed)


DAMAGES: dict[str, Damage] = {"noise": _noise, "zeros": _zeros, "another page": _another, "one bit": _one_bit}


def pages_of(path: str) -> int:
    """How many pages a database file has."""
    return os.path.getsize(path) // PAGE_BYTES


def used_pages(path: str) -> list[int]:
    """Pages (from 0) that are in some table or index."""
    connection = apsw.Connection(path)
    try:
        return sorted(row[0] - 1 for row in connection.execute("SELECT pageno FROM dbstat"))
    finally:
        connection.close()


def damage_page(path: str, seed: int, kind: str, page: int | None = None) -> int:
    """Overwrite one page of a file, chosen by the seed unless it is named; its number (from 0)."""
    dice = random.Random(seed)
    with open(path, "r+b") as file:
        data = file.read()
        count = len(data) // PAGE_BYTES
        chosen = dice.randrange(count) if page is None else page
        other = (chosen + 1 + dice.randrange(max(1, count - 1))) % count
        at, there = data[chosen * PAGE_BYTES :][:PAGE_BYTES], data[other * PAGE_BYTES :][:PAGE_BYTES]
        file.seek(chosen * PAGE_BYTES)
        file.write(DAMAGES[kind](dice, at, there))
    return chosen
