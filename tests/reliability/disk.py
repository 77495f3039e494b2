"""What a disk may hold after a power cut, made from a recording of everything that was done to it.

Owns the recorder (``disk.c``, compiled here), its records and the rules of what survives. Must not know LayrFS.

The rules. What was done to a file before a flush of it began, is there once that flush has ended. Of everything later,
each page shows some moment since then, pages independently of each other; size, cuts and punched holes show one moment
of the file (as journals do). Names show any subset of what was done since the last flush of their directory. After a
flush that failed, what it should have written never comes, unless it is written again: kernels call those pages clean.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

PAGE_BYTES = 4096
HERE = os.path.dirname(os.path.abspath(__file__))
_RECORD = struct.Struct("<6I4Q")
_MAGIC = 0x4B534944
CREATE, WRITE, TRUNCATE, PUNCH, UNLINK, RENAME, MKDIR, LINK = range(1, 9)
SYNC_BEGIN, SYNC_END, SYNC_FAILED, SYNCFS_BEGIN, SYNCFS_END = range(9, 14)
NOTE, AGED = 100, 101
"""Not of the disk: what somebody else wrote into the recording, to say when things happened; from ``AGED`` on, all that
was done before to files below a directory, named in it, was done long ago."""

AGE_SECONDS = 100_000


def compiled(directory: str) -> str:
    """The path of the recorder, compiled into a directory with this machine's C compiler."""
    library = os.path.join(directory, "disk.so")
    if not os.path.exists(library):
        source = os.path.join(HERE, "disk.c")
        command = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", library, source, "-ldl"]
        subprocess.run(command, check=True)
    return library


def recording(library: str, root: str, log: str) -> dict[str, str]:
    """Variables that have a program, and all that it starts, recorded."""
    return {"LD_PRELOAD": library, "LAYRFS_DISK_ROOT": root, "LAYRFS_DISK_LOG": log}


class Record(NamedTuple):
    """One thing done."""

    kind: int
    first: str
    second: str
    data: bytes
    thread: int
    inode: int
    offset: int
    length: int
    time_ns: int


def note(text: bytes) -> bytes:
    """A record of somebody else's, to be appended to the recording with one write."""
    return _other(NOTE, text)


def aged(directory: str) -> bytes:
    """To be appended as well: see ``AGED``."""
    return _other(AGED, os.fsencode(directory))


def _other(kind: int, text: bytes) -> bytes:
    return _RECORD.pack(_MAGIC, kind, 0, 0, len(text), 0, 0, 0, 0, 0) + text


def records(path: str) -> Iterator[Record]:
    """All complete records of a recording, in order."""
    with open(path, "rb") as file:
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            magic, kind, first, second, data, thread, inode, offset, length, time_ns = _RECORD.unpack(head)
            assert magic == _MAGIC
            names = file.read(first + second)
            body = file.read(data)
            if len(body) < data:
                return
            one, other = os.fsdecode(names[:first]), os.fsdecode(names[first:])
            yield Record(kind, one, other, body, thread, inode, offset, length, time_ns)


@dataclass
class File:
    """One file and all that was done to it: (number of the record, record)."""

    done: list[tuple[int, Record]] = field(default_factory=list)
    safe: int = -1
    """Everything before this number is on the disk."""

    old: int = 0
    """Everything before this number was done long ago."""

    lost: list[tuple[int, int]] = field(default_factory=list)
    """First and end number of what a failed flush dropped."""

    def time_ns(self, number: int, record: Record) -> int:
        return record.time_ns - (AGE_SECONDS * 10**9 if number < self.old else 0)

    def is_lost(self, number: int) -> bool:
        return any(first <= number < end for first, end in self.lost)


@dataclass
class Directory:
    """Names now, and all that was done to them."""

    now: dict[str, File | Directory] = field(default_factory=dict)
    done: list[tuple[int, str, File | Directory | None]] = field(default_factory=list)
    safe: int = -1

    def put(self, number: int, name: str, what: File | Directory | None) -> None:
        self.done.append((number, name, what))
        if what is None:
            self.now.pop(name, None)
        else:
            self.now[name] = what


class Severity(NamedTuple):
    """How much of what was not flushed survives: a share of pages (0 none, 1 all) and one of names."""

    pages: float
    names: float


class Disk:
    """The disk as it was told to be, record after record."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._top = Directory()
        self._objects: dict[int, File | Directory] = {os.stat(root).st_ino: self._top}
        self._all: list[File | Directory] = [self._top]
        self._flushes: dict[tuple[int, int], int] = {}
        self._count = 0

    def take(self, record: Record) -> None:
        """One more record."""
        number = self._count
        self._count += 1
        match record.kind:
            case k if k in {WRITE, TRUNCATE, PUNCH}:
                changed = self._objects.get(record.inode)
                if isinstance(changed, File):
                    changed.done.append((number, record))
            case k if k in {CREATE, MKDIR}:
                made: File | Directory = File() if record.kind == CREATE else Directory()
                self._objects[record.inode] = made
                self._all.append(made)
                self._put(number, record.first, made)
            case k if k == UNLINK:
                self._put(number, record.first, None)
            case k if k == RENAME:
                moved = self._find(record.first)
                self._put(number, record.first, None)
                self._put(number, record.second, moved)
            case k if k == LINK:
                self._put(number, record.second, self._find(record.first))
            case k if k in {SYNC_BEGIN, SYNCFS_BEGIN}:
                self._flushes[record.thread, record.inode] = number
            case k if k in {SYNC_END, SYNC_FAILED, SYNCFS_END}:
                self._flushed(record)
            case k if k == AGED:
                self._age(self._find(os.fsdecode(record.data)), number)

    def _age(self, one: File | Directory | None, number: int) -> None:
        if isinstance(one, File):
            one.old = number
        elif one is not None:
            for each in one.now.values():
                self._age(each, number)

    def _flushed(self, record: Record) -> None:
        begun = self._flushes.pop((record.thread, record.inode))
        one = self._objects.get(record.inode)
        if record.kind == SYNCFS_END:
            for each in self._all:
                each.safe = max(each.safe, begun)
        elif one is not None and record.kind == SYNC_END:
            one.safe = max(one.safe, begun)
        elif isinstance(one, File):
            one.lost.append((max(one.safe, 0), begun))

    def _find(self, path: str) -> File | Directory | None:
        found: File | Directory | None = self._top
        for name in os.path.relpath(path, self._root).split("/"):
            if name != ".":
                found = found.now.get(name) if isinstance(found, Directory) else None
        return found

    def _put(self, number: int, path: str, what: File | Directory | None) -> None:
        parent = self._find(os.path.dirname(path))
        if isinstance(parent, Directory):
            parent.put(number, os.path.basename(path), what)

    # --------------------------------------------------------------- after a cut

    def leave(self, target: str, severity: Severity, dice: random.Random) -> None:
        """Make a directory as the disk may be when the power goes now."""
        _Survivor(severity, dice).make(self._top, target)


class _Survivor:
    def __init__(self, severity: Severity, dice: random.Random) -> None:
        self._severity = severity
        self._dice = dice
        self._made: dict[int, str] = {}
        self._kept: dict[int, bool] = {}

    def make(self, directory: Directory, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)
        for name, what in self._names(directory).items():
            place = os.path.join(path, name)
            if isinstance(what, Directory):
                self.make(what, place)
            elif id(what) in self._made:
                os.link(self._made[id(what)], place)
            else:
                self._write(what, place)
                self._made[id(what)] = place

    def _names(self, directory: Directory) -> dict[str, File | Directory]:
        names: dict[str, File | Directory] = {}
        for number, name, what in directory.done:
            if number >= directory.safe and not self._survives(number):
                continue
            if what is None:
                names.pop(name, None)
            else:
                names[name] = what
        return names

    def _survives(self, number: int) -> bool:
        """Both halves of a rename, or neither."""
        if number not in self._kept:
            self._kept[number] = self._dice.random() < self._severity.names
        return self._kept[number]

    def _moment(self, file: File) -> int:
        """Until when a page, or the size, of a file is kept."""
        late = [number for number, _record in file.done if number >= file.safe]
        if not late or self._dice.random() >= self._severity.pages:
            return file.safe
        return self._dice.choice(late) + 1 if self._dice.random() < 0.5 else late[-1] + 1

    def _write(self, file: File, path: str) -> None:
        """Pages of the moments they are of, in a file as long as it was at its own."""
        whole = self._moment(file)
        moments: dict[int, int] = defaultdict(lambda: self._moment(file))
        pages: dict[int, bytearray] = {}
        size, changed_ns = 0, 0
        for number, record in file.done:
            if file.is_lost(number):
                continue
            if record.kind == WRITE:
                for page, at, piece in _pages_of(record):
                    if number < moments[page]:
                        pages.setdefault(page, bytearray(PAGE_BYTES))[at : at + len(piece)] = piece
                end = record.offset + record.length
                if number < whole:
                    grows = end > size
                    size = max(size, end)
                    changed_ns = file.time_ns(number, record) if grows or number < file.safe else changed_ns
            elif number < whole:
                first, end = (
                    (record.offset, None) if record.kind == TRUNCATE else (record.offset, record.offset + record.length)
                )
                _clear(pages, first, end)
                size = record.offset if record.kind == TRUNCATE else size
                changed_ns = file.time_ns(number, record)
        with open(path, "wb") as output:
            os.chmod(path, 0o600)
            for page, data in pages.items():
                if page * PAGE_BYTES < size:
                    os.pwrite(output.fileno(), data[: size - page * PAGE_BYTES], page * PAGE_BYTES)
            output.truncate(size)
        os.utime(path, ns=(changed_ns, changed_ns))


def _pages_of(record: Record) -> Iterator[tuple[int, int, bytes]]:
    """Number of a page, where in it, and the bytes."""
    at = 0
    while at < record.length:
        page, start = divmod(record.offset + at, PAGE_BYTES)
        piece = record.data[at : at + PAGE_BYTES - start]
        yield page, start, piece
        at += len(piece)


def _clear(pages: dict[int, bytearray], first: int, end: int | None) -> None:
    """Zeros from ``first`` to before ``end``; whole pages are holes again."""
    for page in list(pages):
        start = page * PAGE_BYTES
        if start >= first and (end is None or start + PAGE_BYTES <= end):
            del pages[page]
        elif start + PAGE_BYTES > first and (end is None or start < end):
            low, high = max(0, first - start), PAGE_BYTES if end is None else min(PAGE_BYTES, end - start)
            pages[page][low:high] = bytes(high - low)
