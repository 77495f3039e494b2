"""A host's pieces on its disk: written whole and durable, verified before they are believed.

Owns the files that `layrfs.storage.piece_folders` has names for, which look as `layrfs.storage.piece_file` says. Must
not know the network, or what pieces are made of.
Invariants: a file under its final name was complete, verified and fsynced when it got that name, and `put` returns
after the name is durable too; whatever `read` gives has just been verified; what fails verification is moved aside,
counted and from then on missing.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from layrfs.crashpoints import reached
from layrfs.crypto import merkle
from layrfs.crypto.digests import Buffer
from layrfs.durable import sync_directory
from layrfs.errors import CorruptFile, LocalError, NewerFormat, NoSpace, NotPermitted, WrongBytes
from layrfs.ids import PieceId
from layrfs.storage.piece_file import (
    HEAD_BYTES,
    AlignedBuffers,
    PieceHead,
    disk_bytes,
    file_bytes,
    read_head,
    read_whole,
    write_new,
)
from layrfs.storage.piece_folders import PieceFolders
from layrfs.storage.piece_ranges import LeafReads, RangeRead, read_as_is, read_chosen, read_proven
from layrfs.wire.messages import LISTED_PER_MESSAGE, Listed

_log = logging.getLogger(__name__)

T = TypeVar("T")

FREE_DISK_RESERVE_BYTES = 256 << 20
"""Left free on the disk whatever the quota says: other programs live there too."""

FREE_FILES_RESERVE = 10_000
"""Likewise; a file system that has no fixed number of files says 0 of 0."""

_DAMAGE = {errno.EIO, errno.EUCLEAN, errno.EBADMSG}
"""What a disk or file system says of bytes it has lost."""

HEADS_PER_LISTING = 2048
_LISTING_SECONDS = 1.0
_TREES_REMEMBERED = 512
"""Leaf hashes of recently read pieces, 8 KiB each for 4 MiB: ranges are then proven without reading the rest."""


class StoreStatistics(msgspec.Struct, frozen=True):
    """How full, how many, how healthy. `verified` counts since the store was opened."""

    space_bytes: int
    used_bytes: int
    free_bytes: int
    pieces: int
    quarantined: int
    verified: int
    verifying: bool


class PieceStore:
    """Thread-safe; blocking. One process at a time (the host directory's lock sees to that)."""

    def __init__(
        self,
        directory: str,
        *,
        space_bytes: int,
        now: Callable[[], float] = time.time,
        lease_now: Callable[[], float] = time.time,
        heads_per_listing: int = HEADS_PER_LISTING,
    ) -> None:
        """Open or create. Raises LocalError, NewerFormat, CorruptFile. Removes what a crash left unfinished.

        ``lease_now`` is the clock of leases: a file's modification time says when, by this clock, its piece was
        stored or last renewed.
        """
        self._space_bytes = space_bytes
        self._now = now
        self._lease_now = lease_now
        self._heads_per_listing = heads_per_listing
        self._lock = threading.RLock()
        self._buffers = AlignedBuffers()
        self._serial = itertools.count()
        self._trees: OrderedDict[PieceId, list[bytes]] = OrderedDict()
        self._reserved = self._verified = 0
        self._verifying = False
        try:
            self._folders = PieceFolders(directory)
            self._used, self._count = self._folders.measure()
            self._quarantined = self._folders.quarantined()
        except OSError as error:
            raise LocalError(f"the pieces in {directory} cannot be used: {error.strerror}") from error

    @contextlib.contextmanager
    def room(self, piece_bytes: int) -> Iterator[None]:
        """Set room for one piece aside while it is on its way; NoSpace when there is none."""
        wanted = disk_bytes(file_bytes(piece_bytes))
        with self._lock:
            if wanted > self._free_bytes():
                raise NoSpace("the space set aside for others is full")
            self._reserved += wanted
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= wanted

    def put(self, piece: PieceId, data: Buffer, tenant: bytes, note: bytes = b"") -> None:
        """Store a piece; on return it is durable. Call inside `room`. The note is kept with it, whatever it says.

        Raises WrongBytes when `data` is not the piece, NotPermitted when another tenant has it here, NoSpace,
        LocalError.
        """
        hashes = merkle.leaf_hashes(data)
        if merkle.root_of(hashes, len(data)) != piece:
            raise WrongBytes("the bytes are not the piece they are called")
        if self._stored_already(piece, tenant):
            return
        temporary = self._folders.temporary(piece, next(self._serial))
        try:
            write_new(temporary, PieceHead(tenant, int(self._now()), len(data), note), data, self._buffers)
            self._begin_lease(temporary)
            reached("piece written")
            self._publish(piece, temporary, tenant, len(data))
        except OSError as error:
            raise _local_error(error) from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def has(self, piece: PieceId) -> bool:
        """Whether there is such a piece (verified when it is read, not here)."""
        return os.path.exists(self._folders.path(piece))

    def read(self, piece: PieceId) -> bytes | None:
        """The whole piece, verified; None when it is missing, or was bad and is missing from now on."""
        return self._read(piece, lambda data, _: bytes(data))

    def read_range(self, piece: PieceId, offset: int, length: int | None) -> RangeRead | None:
        """The leaves that cover `length` bytes from `offset` on (clipped to the piece), proven; None when missing."""
        return self._read_some(piece, lambda descriptor, hashes: read_proven(descriptor, hashes, offset, length))

    def read_leaves(self, piece: PieceId, choose: Callable[[int], Sequence[int]]) -> LeafReads | None:
        """The leaves that `choose` chooses by the piece's length in bytes, verified; None when missing."""
        return self._read_some(piece, lambda descriptor, hashes: read_chosen(descriptor, hashes, choose))

    def read_unverified(self, piece: PieceId, choose: Callable[[int], Sequence[int]]) -> tuple[int, bytes] | None:
        """The length, and the leaves that `choose` chooses, just as the disk has them; None when missing.

        For who is going to compare a digest of them: nothing else is read, however long ago all of it was.
        """
        with self._opened(piece) as descriptor:
            return None if descriptor is None else read_as_is(descriptor, choose)
        return None

    def head(self, piece: PieceId) -> PieceHead | None:
        """Whose it is and how long; None when there is no such piece, or its head is damaged (it is set aside then)."""
        with self._opened(piece) as descriptor:
            return None if descriptor is None else read_head(descriptor)
        return None

    def delete(self, piece: PieceId, tenant: bytes) -> bool:
        """Forget a piece of this tenant; False when there is none, or it is another's."""
        with self._lock:
            head = self.head(piece)
            if head is None or head.tenant != tenant:
                return False
            os.unlink(self._folders.path(piece))
            self._account(-disk_bytes(file_bytes(head.length)), -1)
            self._trees.pop(piece, None)
        return True

    def renew(self, piece: PieceId, tenant: bytes) -> bool:
        """The lease of a piece of this tenant begins anew; False when there is none, or it is another's."""
        with self._lock:
            head = self.head(piece)
            if head is None or head.tenant != tenant:
                return False
            try:
                self._begin_lease(self._folders.path(piece))
            except OSError as error:
                raise _local_error(error) from error
        return True

    def drop_expired(self, before: float, stop: threading.Event) -> int:
        """Forget every piece that was last renewed before a time of the leases' clock; how many they were."""
        dropped = 0
        for piece in self.pieces():
            with contextlib.suppress(OSError, LocalError):
                dropped += os.stat(self._folders.path(piece)).st_mtime < before and self._drop_expired(piece, before)
            if stop.is_set():
                break
        return dropped

    def _drop_expired(self, piece: PieceId, before: float) -> bool:
        """Looked at again where nobody can renew it meanwhile."""
        path = self._folders.path(piece)
        with self._lock:
            found = os.stat(path)
            if found.st_mtime >= before:
                return False
            os.unlink(path)
            self._account(-disk_bytes(found.st_size), -1)
            self._trees.pop(piece, None)
        return True

    def _begin_lease(self, path: str) -> None:
        """Not fsynced: what a power cut takes back is a minute of a year."""
        now = self._lease_now()
        os.utime(path, (now, now))

    def inventory(self, tenant: bytes, after: PieceId) -> tuple[list[Listed], PieceId | None]:
        """Some of the tenant's pieces after an id, ascending, and the id they go up to; None: there are no more.

        Reads a bounded number of heads for a bounded time, however many pieces there are and whoever asks.
        """
        found: list[Listed] = []
        reached, deadline = after, time.monotonic() + _LISTING_SECONDS
        for count, piece in enumerate(self._folders.pieces(after)):
            full = count == self._heads_per_listing or len(found) == LISTED_PER_MESSAGE
            if full or (count and time.monotonic() > deadline):
                return found, reached
            head = self.head(piece)
            if head is not None and head.tenant == tenant:
                found.append(Listed(piece, head.stored, head.note))
            reached = piece
        return found, None

    def verify_all(self, stop: threading.Event, *, share: float = 0.25) -> None:
        """Read and verify every piece once, using at most this share of the time; returns early when `stop` is set."""
        self._verifying = True
        try:
            for piece in self.pieces():
                started = time.monotonic()
                with contextlib.suppress(LocalError):  # of this moment, not of the piece
                    self._verified += self._is_good(piece)
                if stop.wait((time.monotonic() - started) * (1 / share - 1)):
                    return
        finally:
            self._verifying = False

    def pieces(self) -> Iterator[PieceId]:
        """All pieces, ascending."""
        return self._folders.pieces()

    def statistics(self) -> StoreStatistics:
        """A consistent picture of now."""
        with self._lock:
            return StoreStatistics(
                space_bytes=self._space_bytes,
                used_bytes=self._used,
                free_bytes=self._free_bytes(),
                pieces=self._count,
                quarantined=self._quarantined,
                verified=self._verified,
                verifying=self._verifying,
            )

    def free_bytes(self) -> int:
        """How much more can be stored, by quota and by disk."""
        with self._lock:
            return self._free_bytes()

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._folders.root)
        if disk.f_files and disk.f_favail <= FREE_FILES_RESERVE:
            return 0
        on_disk = disk.f_bavail * disk.f_frsize - FREE_DISK_RESERVE_BYTES
        return max(0, min(self._space_bytes - self._used, on_disk) - self._reserved)

    def _stored_already(self, piece: PieceId, tenant: bytes) -> bool:
        """Whether a good copy is here; a bad one is moved out of the way of the new one."""
        head = self.head(piece)
        if head is None:
            return False
        if head.tenant != tenant:
            raise NotPermitted("another tenant has stored this piece here")
        if not self._is_good(piece) or not self.renew(piece, tenant):
            return False
        sync_directory(os.path.dirname(self._folders.path(piece)))  # another thread may have stored it this very moment
        return True

    def _publish(self, piece: PieceId, temporary: str, tenant: bytes, piece_bytes: int) -> None:
        path = self._folders.path(piece)
        with self._lock:
            head = self.head(piece)
            if head is not None and head.tenant != tenant:
                raise NotPermitted("another tenant has stored this piece here")
            os.rename(temporary, path)
            if head is None:
                self._account(disk_bytes(file_bytes(piece_bytes)), 1)
        reached("piece named")
        sync_directory(os.path.dirname(path))
        reached("piece durable")

    def _account(self, more_bytes: int, more_pieces: int) -> None:
        self._used += more_bytes
        self._count += more_pieces

    def _read(self, piece: PieceId, take: Callable[[memoryview, list[bytes]], T]) -> T | None:
        """What `take` makes of the bytes, which it must not keep, and their leaf hashes, when all is verified."""
        with self._opened(piece) as descriptor:
            if descriptor is None:
                return None
            with self._buffers.lease(os.fstat(descriptor).st_size) as image:
                found = read_whole(descriptor, image)
                head, data = PieceHead.from_bytes(found[:HEAD_BYTES]), found[HEAD_BYTES:]
                hashes = merkle.leaf_hashes(data)
                if len(data) != head.length or merkle.root_of(hashes, len(data)) != piece:
                    raise CorruptFile("the bytes are not the piece any more")
                self._remember(piece, hashes)
                return take(data, hashes)
        return None

    def _is_good(self, piece: PieceId) -> bool:
        return self._read(piece, lambda _data, _hashes: True) is not None

    def _read_some(self, piece: PieceId, read: Callable[[int, list[bytes]], T]) -> T | None:
        """Only parts, verified against hashes that were; of a piece not read lately all of it is verified first."""
        with self._lock:
            hashes = self._trees.get(piece)
        hashes = hashes or self._read(piece, lambda _, hashes: hashes)
        if hashes is None:
            return None
        with self._opened(piece) as descriptor:
            return None if descriptor is None else read(descriptor, hashes)
        return None

    @contextlib.contextmanager
    def _opened(self, piece: PieceId) -> Iterator[int | None]:
        """A descriptor of the piece's file, or None. Damage found inside sets the file aside and ends the block.

        Only damage does: a piece that cannot be read for want of memory or descriptors is a LocalError, not missing.
        """
        try:
            descriptor = os.open(self._folders.path(piece), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise LocalError(f"a piece cannot be read: {error.strerror}") from error
        try:
            yield descriptor
        except CorruptFile as error:
            self._set_aside(piece, descriptor, str(error))
        except NewerFormat as error:
            raise LocalError(f"a piece cannot be read: {error}") from error
        except OSError as error:
            if error.errno not in _DAMAGE:
                raise LocalError(f"a piece cannot be read: {error.strerror}") from error
            self._set_aside(piece, descriptor, str(error))
        finally:
            os.close(descriptor)

    def _remember(self, piece: PieceId, hashes: list[bytes]) -> None:
        with self._lock:
            self._trees[piece] = hashes
            self._trees.move_to_end(piece)
            if len(self._trees) > _TREES_REMEMBERED:
                self._trees.popitem(last=False)

    def _set_aside(self, piece: PieceId, descriptor: int, why: str) -> None:
        """Out of the way, for a person to look at; only the newest few are kept. Never a newer, good file."""
        _log.warning("Piece %s is damaged and set aside: %s", piece.hex(), why)
        path = self._folders.path(piece)
        with self._lock, contextlib.suppress(OSError):
            self._trees.pop(piece, None)
            if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return
            size = os.fstat(descriptor).st_size
            self._folders.set_aside(piece)
            self._account(-disk_bytes(size), -1)
            self._quarantined += 1


def _local_error(error: OSError) -> LocalError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace("the disk is full")
    return LocalError(f"a piece cannot be written: {error.strerror}")
