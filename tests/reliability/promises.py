"""What a workload was promised, and whether a directory keeps it.

Owns the notes of ``tests.reliability.workload`` (one before each call, one after it) and what a file system may make of
them after a crash. Pure but for ``check``, which reads the directory.

A file written in place: what the last completed fsync saw is there, byte by byte, or what a later call made of it; a
range between two borders (of calls, or of pages) is of one moment. A name that was given by rename, or taken by
unlink: what stood there at the last completed fsync of the directory, or anything later, each version whole; but of a
file that was renamed without an fsync there may be pieces: until anything was fsynced after that if it replaced
another, for ever if it did not.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass, field
from typing import Any

Note = dict[str, Any]
PAGE_BYTES = 4096
PATTERN_BYTES = 16


def pattern(tag: int, offset: int, length: int) -> bytes:
    """What a call with this tag writes: any 16 bytes tell the tag and their place."""
    unit = b"%015d\n" % tag
    start = offset % PATTERN_BYTES
    return (unit * (length // PATTERN_BYTES + 2))[start : start + length]


@dataclass
class Call:
    """A write (``tag`` > 0) of ``length`` bytes at ``offset``, or a truncation to ``offset``."""

    tag: int
    offset: int
    length: int

    def after(self, data: bytes) -> bytes:
        """The file after the call."""
        if not self.tag:
            return data[: self.offset] + bytes(max(0, self.offset - len(data)))
        gap = bytes(max(0, self.offset - len(data)))
        return (
            data[: self.offset] + gap + pattern(self.tag, self.offset, self.length) + data[self.offset + self.length :]
        )


@dataclass
class InPlace:
    """One file written in place: ``base`` is promised (None: not even that it exists), ``later`` may be there too."""

    base: bytes | None = None
    is_known: bool = True
    """Every call was answered with success: the next fsync promises what they made."""
    later: list[Call] = field(default_factory=list)

    def now(self) -> bytes:
        """What all calls made."""
        data = self.base or b""
        for call in self.later:
            data = call.after(data)
        return data

    def complaint(self, found: bytes | None) -> str | None:
        """What is wrong with the file as found."""
        if found is None:
            return None if self.base is None else "is missing"
        base = self.base or b""
        stages = [base]
        for call in self.later:
            stages.append(call.after(stages[-1]))
        sizes = [len(stage) for stage in stages]
        if not min(0 if self.base is None else sizes[0], *sizes) <= len(found) <= max(sizes):
            return f"has {len(found)} bytes, and never had between {min(sizes)} and {max(sizes)}"
        return self._torn(found, stages)

    def _torn(self, found: bytes, stages: list[bytes]) -> str | None:
        borders = {0, len(found), *range(0, len(found), PAGE_BYTES)}
        for call in self.later:
            borders |= {call.offset, call.offset + call.length}
        borders |= {len(stage) for stage in stages}
        cuts = sorted(border for border in borders if 0 <= border <= len(found))
        for start, end in itertools.pairwise(cuts):
            here = found[start:end]
            if not any(_padded(stage, start, end) == here for stage in stages):
                return f"bytes {start} to {end} are of no moment since the last fsync: {here[:32]!r}"
        return None


def _padded(data: bytes, start: int, end: int) -> bytes:
    part = data[start:end]
    return part + bytes(end - start - len(part))


Version = tuple[int, int] | None
"""Tag and length of a file made whole; None: no such name."""


@dataclass
class Named:
    """One name: ``versions`` in order, of which the one at ``promised`` or any later may be found."""

    versions: list[Version] = field(default_factory=lambda: [None])
    promised: int = 0
    loose: set[int] = field(default_factory=set)
    """Of the versions, those whose bytes may not have come to the disk."""

    def complaint(self, found: bytes | None) -> str | None:
        """What is wrong with what stands there."""
        for number, version in list(enumerate(self.versions))[self.promised :]:
            if (found is None) if version is None else (found == pattern(version[0], 0, version[1])):
                return None
            if number in self.loose and version is not None and found is not None and _is_part(found, version):
                return None
        text = "nothing" if found is None else f"{len(found)} bytes {found[:32]!r}"
        return f"is {text}, and was none of {self.versions[self.promised :]} since its directory was fsynced"


def _is_part(found: bytes, version: tuple[int, int]) -> bool:
    """Whether each page is of this version, or zeros."""
    whole = pattern(version[0], 0, version[1])
    return len(found) <= len(whole) and all(
        found[at : at + PAGE_BYTES] in {whole[at : at + PAGE_BYTES], bytes(len(found[at : at + PAGE_BYTES]))}
        for at in range(0, len(found), PAGE_BYTES)
    )


@dataclass
class Promises:
    """All files of a workload."""

    files: dict[str, InPlace] = field(default_factory=dict)
    names: dict[str, Named] = field(default_factory=dict)
    pending: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of an fsync of a directory under way: how far each of its names had come when it began."""

    fsynced: int = 0
    """How many calls of fsync were answered with success."""

    def take(self, note: Note) -> None:
        """One more note, in the order they were written."""
        match note["call"], note["state"]:
            case (("write" | "truncate"), "begin"):
                self.files[note["file"]].later.append(Call(note["tag"], note["offset"], note["length"]))
            case "create", "begin":
                # where the drive was there may be an empty directory now: a file that is known is not made anew
                self.files.setdefault(note["file"], InPlace())
            case "fsync", "done":
                file = self.files[note["file"]]
                self._firm()
                if file.is_known:
                    file.base, file.later = file.now(), []
            case (("write" | "truncate" | "fsync"), "failed"):
                self.files[note["file"]].is_known = False
            case (("replace" | "save" | "unlink"), "begin"):
                version = None if note["call"] == "unlink" else (note["tag"], note["length"])
                named = self.names.setdefault(note["file"], Named())
                named.loose |= {len(named.versions)} if note["call"] == "save" else set()
                named.versions.append(version)
            case (("replace" | "save" | "unlink"), "failed"):
                versions = self.names[note["file"]].versions
                versions.append(versions[-2])
            case "fsyncdir", "begin":
                reached = {name: len(named.versions) - 1 for name, named in self.names.items()}
                self.pending[note["file"]] = {name: at for name, at in reached.items() if _is_in(name, note["file"])}
            case "fsyncdir", "done":
                for name, at in self.pending.pop(note["file"]).items():
                    self.names[name].promised = at
                self._firm()

    def _firm(self) -> None:
        """One more fsync has returned; the calls before it had ended, as one program makes them all."""
        self.fsynced += 1
        for named in self.names.values():
            named.loose = {number for number in named.loose if named.versions[number - 1] is None}

    def check(self, root: str) -> list[str]:
        """Every promise that the directory does not keep, one sentence each."""
        broken = [(name, file.complaint(_read(root, name))) for name, file in self.files.items()]
        broken += [(name, named.complaint(_read(root, name))) for name, named in self.names.items()]
        return [f"{name} {complaint}" for name, complaint in broken if complaint is not None]

    def adopt(self, root: str) -> None:
        """What is there now is what has to stay there."""
        for name, file in self.files.items():
            file.base, file.later, file.is_known = _read(root, name), [], True
        for name, named in self.names.items():
            found = _read(root, name)
            held = [one for one in named.versions if (None if one is None else pattern(one[0], 0, one[1])) == found]
            named.versions, named.promised, named.loose = held[-1:], 0, set()
        self.names = {name: named for name, named in self.names.items() if named.versions}
        self.files = {name: file for name, file in self.files.items() if file.base is not None}

    def forget_failed(self, root: str) -> None:
        """Delete files that failed calls left in a state that only the kernel knows, until it forgets."""
        for name in [name for name, file in self.files.items() if not file.is_known]:
            del self.files[name]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(root, name))


def _is_in(name: str, directory: str) -> bool:
    return os.path.dirname(name) == directory


def _read(root: str, name: str) -> bytes | None:
    try:
        with open(os.path.join(root, name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
