"""A program that writes as programs do, and notes what it was promised.

    python -m tests.reliability.workload ROOT SEED NOTES [--steps N] [--recording]

Writes in place at odd offsets, whole blocks, through O_DIRECT and through memory, cuts, grows, fsyncs, replaces files
by rename (with or without an fsync before), unlinks, fsyncs directories, until it is killed, the drive is gone, or N
steps are done. NOTES gets one JSON object a line, before and after each call: whoever kills the drive knows from them
what must be there (``tests.reliability.promises``). A call that fails is noted, and the program goes on: after a failed
fsync nothing is promised.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import mmap
import os
import random
from collections.abc import Callable
from typing import Any

from tests.reliability import disk
from tests.reliability.promises import pattern

FILES = 4
NAMES = 4
DIRECTORIES = ("", "below")
LARGEST_BYTES = 400_000
PAGE_BYTES = 4096
BLOCK_BYTES = 65536
"""Of the smallest blocks a file can have."""

GONE = {errno.ENOTCONN, errno.ENODEV, errno.ECONNABORTED}


class Gone(Exception):
    """There is no drive any more."""


class Workload:
    """One process's calls on one directory."""

    def __init__(self, root: str, seed: int, put_down: Callable[[bytes], object]) -> None:
        self._root = root
        self._dice = random.Random(seed)
        self._put_down = put_down
        self._tag = seed * 1_000_000
        self._files = [f"f{number}" for number in range(FILES)]
        self.failed: dict[str, int] = {}

    def run(self, steps: int | None) -> None:
        """Until ``steps`` are done, or the drive is gone."""
        with contextlib.suppress(Gone):
            self._prepare()
            done = 0
            while steps is None or done < steps:
                for name in list(self._files):
                    self._create(name)
                if all(map(self._is_there, self._files)):
                    self._step()
                done += 1

    def _prepare(self) -> None:
        for directory in DIRECTORIES:
            os.makedirs(os.path.join(self._root, directory), exist_ok=True)
            self._fsync_directory(directory)
        self._fsync_path(os.path.dirname(self._root))
        for name in self._files:
            self._create(name)
        self._fsync_directory("")

    def _create(self, name: str) -> None:
        if not self._is_there(name):
            self._call("create", name, lambda path: os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600)))
            self._call("fsync", name, self._fsync_path)

    def _is_there(self, name: str) -> bool:
        """Also when nobody can tell: a file that exists must not be made anew."""
        try:
            os.stat(self._path(name))
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in GONE:
                raise Gone from error
        return True

    def _give_up(self, name: str) -> None:
        """A call on the file failed, so what is in it nobody knows; another takes its place at the next step."""
        if name in self._files:
            self._tag += 1
            self._files[self._files.index(name)] = f"{name.partition('.')[0]}.{self._tag}"

    def _step(self) -> None:
        dice = self._dice
        name, named = dice.choice(self._files), os.path.join(dice.choice(DIRECTORIES), f"r{dice.randrange(NAMES)}")
        act: Callable[[], None] = dice.choices(
            [
                lambda: self._write(name),
                lambda: self._write_direct(name),
                lambda: self._write_mapped(name),
                lambda: self._truncate(name),
                lambda: self._call("fsync", name, self._fsync_path),
                lambda: self._replace(named),
                lambda: self._replace(named, hasty=True),
                lambda: self._unlink(named),
                lambda: self._fsync_directory(os.path.dirname(named)),
                lambda: self._overwrite(name),
                lambda: self._overwrite_blocks(name),
                lambda: self._cut_and_grow(name),
            ],
            [6, 3, 2, 2, 6, 3, 3, 1, 3, 1, 4, 2],
        )[0]
        act()

    # ------------------------------------------------------------------- calls

    def _write(self, name: str) -> None:
        offset, length = self._dice.randrange(LARGEST_BYTES), self._dice.choice([1, 100, 4096, 5000, 70_000])
        self._call("write", name, lambda path: _pwrite(path, self._data(offset, length), offset), offset, length)

    def _overwrite(self, name: str) -> None:
        """The whole file, in place."""
        length = self._dice.randrange(1, LARGEST_BYTES)
        self._call("write", name, lambda path: _pwrite(path, self._data(0, length), 0), 0, length)

    def _write_direct(self, name: str) -> None:
        """Reaches the drive at once, fsynced or not."""
        offset = self._dice.randrange(LARGEST_BYTES // PAGE_BYTES) * PAGE_BYTES
        self._direct(name, offset, self._dice.choice([1, 4, 16]) * PAGE_BYTES)

    def _overwrite_blocks(self, name: str) -> None:
        """Of which nothing old is needed, so that the drive does not fetch it."""
        offset = self._dice.randrange(LARGEST_BYTES // BLOCK_BYTES) * BLOCK_BYTES
        self._direct(name, offset, self._dice.choice([1, 2]) * BLOCK_BYTES)

    def _direct(self, name: str, offset: int, length: int) -> None:
        def write(path: str) -> None:
            page = mmap.mmap(-1, length)
            page[:] = self._data(offset, length)
            file = os.open(path, os.O_WRONLY | os.O_DIRECT)
            try:
                os.pwrite(file, page, offset)
            finally:
                os.close(file)

        self._call("write", name, write, offset, length)

    def _write_mapped(self, name: str) -> None:
        """Through memory; msync promises no more here than the write does."""
        try:
            size = os.stat(self._path(name)).st_size
        except OSError:
            return
        if size < 2:
            return
        offset = self._dice.randrange(size - 1)
        length = self._dice.randrange(1, min(30_000, size - offset) + 1)

        def write(path: str) -> None:
            with open(path, "r+b") as file, mmap.mmap(file.fileno(), size) as memory:
                memory[offset : offset + length] = self._data(offset, length)

        self._call("write", name, write, offset, length)

    def _truncate(self, name: str) -> None:
        size = self._dice.choice([0, self._dice.randrange(LARGEST_BYTES)])
        self._call("truncate", name, lambda path: os.truncate(path, size), size)

    def _cut_and_grow(self, name: str) -> None:
        """What was cut off is zeros."""
        for size in sorted(self._dice.sample(range(LARGEST_BYTES), 2)):
            self._call("truncate", name, lambda path, size=size: os.truncate(path, size), size)

    def _replace(self, name: str, *, hasty: bool = False) -> None:
        """Write another file, fsync it unless ``hasty``, rename it over."""
        length, temporary = self._dice.choice([0, 300, 5000, 90_000]), name + ".tmp"
        self._tag += 1
        tag = self._tag

        def prepare() -> None:
            file = os.open(self._path(temporary), os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            try:
                os.pwrite(file, pattern(tag, 0, length), 0)
                hasty or os.fsync(file)
            finally:
                os.close(file)

        if self._try("prepare", prepare):
            self._call(
                "save" if hasty else "replace",
                name,
                lambda path: os.rename(self._path(temporary), path),
                0,
                length,
                tag,
            )

    def _unlink(self, name: str) -> None:
        if self._is_there(name):
            self._call("unlink", name, os.unlink)

    def _fsync_directory(self, name: str) -> None:
        self._call("fsyncdir", name, self._fsync_path)

    # ------------------------------------------------------------------ inside

    def _call(
        self, call: str, name: str, act: Callable[[str], None], offset: int = 0, length: int = 0, tag: int = 0
    ) -> None:
        if call == "write":
            self._tag += 1
            tag = self._tag
        note = {"call": call, "file": name, "tag": tag, "offset": offset, "length": length}
        self._note(note | {"state": "begin"})
        done = self._try(call, lambda: act(self._path(name)))
        self._note(note | {"state": "done" if done else "failed"})
        if not done and call != "create":
            self._give_up(name)

    def _try(self, call: str, act: Callable[[], None]) -> bool:
        try:
            act()
        except OSError as error:
            if error.errno in GONE:
                raise Gone from error
            key = f"{call} {errno.errorcode.get(error.errno or 0, '?')}"
            self.failed[key] = self.failed.get(key, 0) + 1
            print(f"{call}: {error}", flush=True)
            return False
        return True

    def _data(self, offset: int, length: int) -> bytes:
        return pattern(self._tag, offset, length)

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _fsync_path(self, path: str) -> None:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def _note(self, note: dict[str, Any]) -> None:
        self._put_down(json.dumps(note).encode())


def _pwrite(path: str, data: bytes, offset: int) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(file, data, offset)
    finally:
        os.close(file)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("seed", type=int)
    parser.add_argument("notes")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--recording", action="store_true", help="NOTES is a recording of tests.reliability.disk")
    asked = parser.parse_args()
    notes = os.open(asked.notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    wrap = disk.note if asked.recording else lambda text: text + b"\n"
    workload = Workload(asked.root, asked.seed, lambda text: os.write(notes, wrap(text)))
    workload.run(asked.steps)
    print(json.dumps(workload.failed))


if __name__ == "__main__":
    main()
