"""How values look to a person, and to a program that asked for ``--json``. Pure but for writing to standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence

import msgspec

from layrfs.logs import printable

_STEP = 1024
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_TWO_DIGITS = 10


def say(*lines: str) -> None:
    """Print lines."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def say_json(value: object) -> None:
    """Print a struct as JSON. Bytes are names: as text, what is not UTF-8 as \\udcXX (surrogateescape)."""
    builtin = msgspec.to_builtins(value, builtin_types=(bytes,))
    say(json.dumps(_with_text(builtin), indent=1))


def shown_path(path: bytes) -> str:
    """A name nobody can hide terminal commands in."""
    return printable(os.fsdecode(path))


def shown_bytes(count: int) -> str:
    """``1.4 GiB``."""
    if count < _STEP:
        return f"{count} B"
    amount, unit = count / _STEP, 0
    while amount >= _STEP and unit < len(_UNITS) - 1:
        amount, unit = amount / _STEP, unit + 1
    return f"{amount:.{0 if amount >= _TWO_DIGITS else 1}f} {_UNITS[unit]}"


def shown_seconds(seconds: float) -> str:
    """``3 h 20 min``; at most two units."""
    whole = max(0, round(seconds))
    for size, unit, below_size, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below_size
            return f"{whole // size} {unit} {rest} {below}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def shown_count(count: int, noun: str) -> str:
    """``1 file``, ``5,012 files``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def table(rows: Iterable[Sequence[str]], indent: str = "") -> list[str]:
    """Columns aligned to the left, two spaces apart."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [indent + line.rstrip() for line in padded]


def _with_text(value: object) -> object:
    match value:
        case bytes():
            return os.fsdecode(value)
        case dict():
            return {key: _with_text(each) for key, each in value.items()}
        case list() | tuple():
            return [_with_text(each) for each in value]
    return value
