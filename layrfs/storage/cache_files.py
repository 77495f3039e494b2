"""One sparse file per inode, holding the blocks that are on this machine, each at its own place in the file.

Owns the cache directory, a bounded number of open descriptors and the system calls on them. Must not know which parts
of a file mean anything: that is the journal's business. Zeros and never written are the same thing here; bytes
beyond a cache file's end are zeros.

Layout: ``DIR/<inode // 4096 in hex>/<inode in hex>``.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from layrfs.durable import make_directory
from layrfs.errors import FileTooLarge, LayrError, LocalError, NoSpace
from layrfs.ids import InodeNumber

OPEN_FILES = 400
"""Descriptors kept open at most; the usual limit of a process is 1,024."""

INODES_PER_DIRECTORY = 4096

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_ZEROS = bytes(256 * 1024)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.syncfs.argtypes = (ctypes.c_int,)

_HEX_DIGITS = frozenset("0123456789abcdef")


class CacheFile:
    """The cache file of one inode; opened when first needed, closed when others need its descriptor."""

    __slots__ = ("_files", "fd", "inode", "is_new", "path")

    def __init__(self, files: CacheFiles, inode: InodeNumber, *, is_new: bool) -> None:
        self._files = files
        self.inode = inode
        self.path = files.path(inode)
        self.fd = -1
        """The open descriptor, or -1: ask ``reading`` or ``writing`` then. For hot paths."""
        self.is_new = is_new
        """There is no such file yet, and nobody else makes one."""

    def reading(self) -> int:
        """An open descriptor, or -1 when there is no file (nothing but zeros)."""
        if self.fd < 0:
            self._files.open(self, create=False)
        return self.fd

    def writing(self) -> int:
        """An open descriptor of a file that exists from now on."""
        if self.fd < 0:
            self._files.open(self, create=True)
        return self.fd

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes."""
        fd = self.fd if self.fd >= 0 else self.reading()
        if fd < 0:
            return bytes(length)
        try:
            data = os.pread(fd, length, offset)
            while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise failed(error, self.path) from error
        return data if len(data) == length else data + bytes(length - len(data))

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write everything. Raises ``NoSpace`` or ``LocalError``."""
        fd = self.fd if self.fd >= 0 else self.writing()
        try:
            written = os.pwrite(fd, data, offset)
            while written < len(data):
                written += os.pwrite(fd, memoryview(data)[written:], offset + written)
        except OSError as error:
            raise failed(error, self.path) from error

    def size(self) -> int:
        """Where the file ends; 0 when there is none."""
        fd = self.reading()
        return 0 if fd < 0 else os.fstat(fd).st_size

    def cut(self, size: int) -> None:
        """The file ends at ``size`` at the latest."""
        self._files.cut(self.inode, size)

    def data_ranges(self) -> Iterator[tuple[int, int]]:
        """Where the file has data, as ``start, end``; what is between reads as zeros."""
        fd, at = self.reading(), 0
        while fd >= 0:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise failed(error, self.path) from error
            at = os.lseek(fd, start, os.SEEK_HOLE)
            yield start, at

    def close(self) -> None:
        self._files.close(self)


class FileFacts(NamedTuple):
    """Where a cache file ends, and when it was last written (seconds)."""

    size: int
    changed: float


class CacheFiles:
    """The cache directory. Methods block for as long as the local disk does."""

    def __init__(self, directory: str, *, open_files: int = OPEN_FILES) -> None:
        """Create the directory if it is missing. Raises ``LocalError``."""
        self.directory = directory
        self._limit = open_files
        self._open: dict[InodeNumber, CacheFile] = {}
        self._names_made: dict[str, int] = {}
        """How many names were made in a directory, since the start."""
        self._names_synced: dict[str, int] = {}
        """How many of them are known to be on the disk; nothing is known of a directory that is not here."""
        self._unsure: set[InodeNumber] = set()
        try:
            make_directory(directory)
        except OSError as error:
            raise failed(error, directory) from error

    def path(self, inode: InodeNumber) -> str:
        return f"{self.directory}/{inode // INODES_PER_DIRECTORY:x}/{inode:x}"

    def file(self, inode: InodeNumber, *, is_new: bool = False) -> CacheFile:
        """A handle for one inode, closed so far. At most one per inode may be in use; ``is_new``: it has no file."""
        return CacheFile(self, inode, is_new=is_new)

    def open(self, file: CacheFile, *, create: bool) -> None:
        """Open a handle's descriptor, closing the one opened longest ago when there are too many."""
        try:
            fd = -1 if file.is_new else _open(file.path)
            if fd < 0 and create:
                file.is_new = False
                self.make_directory(file.inode)
                fd = os.open(file.path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o600)
                self.made_name(file.inode)
        except OSError as error:
            raise failed(error, file.path) from error
        if fd < 0:
            return
        if len(self._open) >= self._limit:
            self._open[next(iter(self._open))].close()
        file.fd = fd
        self._open[file.inode] = file

    def close(self, file: CacheFile) -> None:
        """Give a handle's descriptor back; harmless when it has none."""
        if file.fd >= 0:
            del self._open[file.inode]
            os.close(file.fd)
            file.fd = -1

    def make_directory(self, inode: InodeNumber) -> None:
        """Have the directory of an inode's file: the file is about to be created. Say ``made_name`` after that."""
        directory = os.path.dirname(self.path(inode))
        if directory in self._names_made:
            return
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise failed(error, directory) from error
        else:
            self._count_name(self.directory)
        self._names_made.setdefault(directory, 0)

    def made_name(self, inode: InodeNumber) -> None:
        """An inode's file may just have been created, here or by a worker."""
        self._count_name(os.path.dirname(self.path(inode)))

    def _count_name(self, directory: str) -> None:
        self._names_made[directory] = self._names_made.get(directory, 0) + 1

    def size(self, inode: InodeNumber) -> int:
        """Where an inode's file ends; 0 when there is none."""
        try:
            return os.stat(self.path(inode)).st_size
        except FileNotFoundError:
            return 0

    def remove(self, inode: InodeNumber) -> None:
        """Delete an inode's file if it has one; nobody may have it open."""
        try:
            os.unlink(self.path(inode))
        except FileNotFoundError:
            return
        except OSError as error:
            raise failed(error, self.path(inode)) from error

    def cut(self, inode: InodeNumber, size: int) -> None:
        """An inode's file ends at ``size`` at the latest."""
        path = self.path(inode)
        try:
            if os.stat(path).st_size > size:
                os.truncate(path, size)
        except FileNotFoundError:
            return
        except OSError as error:
            raise failed(error, path) from error

    def punch(self, inode: InodeNumber, ranges: Iterable[tuple[int, int]]) -> None:
        """Make ranges (offset, length) of an inode's file zeros that take no room; its end stays. Also for a thread."""
        path = self.path(inode)
        try:
            fd = _open(path)
            if fd < 0:
                return
            try:
                for offset, length in ranges:
                    punch(fd, offset, length)
            finally:
                os.close(fd)
        except OSError as error:
            raise failed(error, path) from error

    def is_unsure(self, inode: InodeNumber) -> bool:
        """Whether a ``sync`` of the file has failed: what it holds must be written again before another is believed."""
        return inode in self._unsure

    @property
    def has_unsure(self) -> bool:
        """Whether any is."""
        return bool(self._unsure)

    def sync(self, inode: InodeNumber) -> None:
        """Return when the file's data and its name are on the disk. For a thread. Raises ``LocalError``."""
        path = self.path(inode)
        try:
            sync_path(path, os.fdatasync)
        except LayrError:
            self._unsure.add(inode)
            raise
        self._unsure.discard(inode)
        for directory in (os.path.dirname(path), self.directory):
            made = self._names_made.get(directory, 0)
            if self._names_synced.get(directory, -1) < made:
                sync_path(directory, os.fsync)
                self._names_synced[directory] = made

    def sync_all(self) -> None:
        """Return when every cache file is on the disk. For a thread."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(fd) != 0:
                code = ctypes.get_errno()
                raise failed(OSError(code, os.strerror(code)), self.directory)
        finally:
            os.close(fd)

    def free_bytes(self) -> int:
        """Room on the disk that holds the cache."""
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize

    def groups(self) -> list[int]:
        """The directories that exist: group ``g`` holds inodes from ``g * INODES_PER_DIRECTORY``."""
        return sorted(int(name, 16) for name in os.listdir(self.directory) if _is_hex(name))

    def inodes(self, group: int) -> list[InodeNumber]:
        """The inodes with a file in a group."""
        return sorted(InodeNumber(int(name, 16)) for name in os.listdir(f"{self.directory}/{group:x}") if _is_hex(name))

    def facts(self, group: int) -> dict[InodeNumber, FileFacts]:
        """Of every file in a group; one look at the directory, where a question for each file would cost more."""
        with os.scandir(f"{self.directory}/{group:x}") as entries:
            found = ((entry.name, entry.stat(follow_symlinks=False)) for entry in entries if _is_hex(entry.name))
            return {InodeNumber(int(name, 16)): FileFacts(fact.st_size, fact.st_mtime) for name, fact in found}

    def changed_seconds(self, inode: InodeNumber) -> float | None:
        """When an inode's file was last written; None when there is none."""
        try:
            return os.stat(self.path(inode)).st_mtime
        except FileNotFoundError:
            return None


def punch(fd: int, offset: int, length: int) -> None:
    """Make a range of a file zeros, freeing its room where the file system can."""
    if length <= 0:
        return
    if _libc.fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, length) == 0:
        return
    code = ctypes.get_errno()
    if code not in {errno.EOPNOTSUPP, errno.ENOSYS}:
        raise OSError(code, os.strerror(code))
    end = min(offset + length, os.fstat(fd).st_size)
    while offset < end:
        offset += os.pwrite(fd, _ZEROS[: end - offset], offset)


def failed(error: OSError, path: str) -> LayrError:
    """Our error for one of the local disk's."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(f"The disk that holds {path} is full.")
    if error.errno == errno.EFBIG:
        return FileTooLarge(f"{path} cannot grow so far on its disk.")
    return LocalError(f"{path}: {error.strerror}.")


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def sync_path(path: str, flush: Callable[[int], None]) -> None:
    """Return when a file or directory is on the disk; at once when it is gone. Raises ``NoSpace``, ``LocalError``."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        flush(fd)
    except OSError as error:
        raise failed(error, path) from error
    finally:
        os.close(fd)


def _is_hex(name: str) -> bool:
    return name != "" and _HEX_DIGITS.issuperset(name)
