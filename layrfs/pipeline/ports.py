"""What a job in a worker needs from others: hosts that keep pieces, and the foreman, who gave it the job.

Owns two small interfaces, so that jobs run under test without sockets or processes. The real ones are
`layrfs.network.links.HostLinks` and the line to the main process in `layrfs.worker`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Protocol

import msgspec

from layrfs.crypto.digests import Buffer
from layrfs.ids import PieceId
from layrfs.model.records import HostAddress
from layrfs.network.connections import Cancellation
from layrfs.pipeline.jobs import Place, Wish
from layrfs.pipeline.sealing import SealingKeys


class Cancelled(Exception):
    """The main process no longer wants the job: an event on the way out, never shown."""


class Links(Protocol):
    """Blocking calls to hosts, for many threads at once. They raise a `RemoteError` or nothing."""

    def store(
        self,
        host: HostAddress,
        piece: PieceId,
        data: Buffer,
        *,
        tenant_private: bytes,
        deadline_seconds: float,
        stall_seconds: float,
        moved: Callable[[], None],
        note: bytes,
        cancellation: Cancellation | None = None,
    ) -> None:
        """Returns when the host has the piece and its note on its disk; `moved` is called while bytes arrive there."""
        ...

    def retrieve(
        self,
        host: HostAddress,
        piece: PieceId,
        *,
        deadline_seconds: float,
        arrived: Callable[[], None],
        cancellation: Cancellation | None = None,
    ) -> bytearray:
        """The whole piece, verified against its id; `arrived` is called whenever some of it has come."""
        ...

    def delete(self, host: HostAddress, pieces: Sequence[PieceId], tenant_private: bytes) -> int:
        """How many of the pieces the host has forgotten."""
        ...


class Calls:
    """The calls to hosts that one job, or a part of it, has open, so that cancelling it ends them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Cancellation] = set()
        self._cancelled = False

    @contextlib.contextmanager
    def one(self, call: Cancellation | None = None) -> Iterator[Cancellation]:
        """What ends this call (`call`, when the caller wants to as well); raises `Cancelled` when the job is."""
        call = call or Cancellation()
        with self._lock:
            if self._cancelled:
                raise Cancelled
            self._open.add(call)
        try:
            yield call
        finally:
            with self._lock:
                self._open.discard(call)

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def check(self) -> None:
        """Raises `Cancelled` when the job is."""
        if self._cancelled:
            raise Cancelled

    def cancel(self) -> None:
        """End all open calls and refuse new ones. Any thread, any number of times."""
        with self._lock:
            self._cancelled = True
            calls = list(self._open)
        for call in calls:
            call.cancel()


class Foreman(Protocol):
    """Who gave the job and answers its questions. Questions block, and raise `Cancelled` when the job is."""

    @property
    def calls(self) -> Calls:
        """The job's open calls."""
        ...

    def find_content(self, digests: Sequence[bytes]) -> Mapping[bytes, tuple[int, int]]:
        """Which blocks the volume stores already."""
        ...

    def find_places(self, wishes: Sequence[Wish]) -> Sequence[Place | None]:
        """A host for each piece, or None."""
        ...

    def moving(self) -> None:
        """Bytes of a piece arrive at a host."""
        ...

    def tried(self, piece_bytes: int, seconds: float, *, well: bool) -> None:
        """A host has a piece now, or has not, after so long."""
        ...


class Tools(msgspec.Struct, frozen=True):
    """What all jobs of a worker share. `hands` runs calls to hosts; jobs run elsewhere, or all would wait for all."""

    keys: SealingKeys
    mask: bytes
    links: Links
    hands: Executor
