"""A host looks after other people's volumes while their owners are away: what owners ask, and when the work is done.

Owns the delegations that are running, and the order in which each is begun, rests and is forgotten. Must not know what
the work is (``layrfs.app.looking_after``). Invariants: whoever is answered finds on the disk what was said; while an
owner's machine is there, nothing is done to its volume; what ends the work on one volume ends no other.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import trio

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage, LayrError, LocalError, MissingPiece, NoSpace
from layrfs.ids import VolumeId
from layrfs.model.patch_records import signed
from layrfs.storage.database import Database
from layrfs.storage.entrusted import Entrusted, Made, made_here
from layrfs.storage.grants import Grant, Grants
from layrfs.storage.remains import open_entrusted
from layrfs.wire.delegation import (
    RECORDS_PER_MESSAGE,
    UNSIGNED,
    Delegate,
    Delegated,
    DelegationRequest,
    DelegationResponse,
    Entrust,
    GetPatches,
    Patches,
    PatchRecord,
    Revoke,
    Revoked,
)
from layrfs.wire.delegation import (
    Entrusted as EntrustedAnswer,
)

MOST_VOLUMES = 16
REST_SECONDS = 120.0
"""After an owner was heard of: there is more to come."""

RETRY_SECONDS = 60.0
EXPIRY_SECONDS = 60.0
"""How often it is looked whose time has passed."""

_FULL = "a host looks after so many volumes and no more"

_log = logging.getLogger(__name__)

Work = Callable[[Grant, Database, Entrusted], Awaitable[None]]
"""Looks after one volume until it is cancelled."""


class _Volume:
    """One volume; ``run`` once."""

    def __init__(self, grant: Grant, database: Database, rest_seconds: float) -> None:
        self.grant = grant
        self.lock = trio.Lock()
        self.database = database
        self.entrusted = Entrusted(self.database)
        self.life = trio.CancelScope()
        self.ended = trio.Event()
        self._alone_at = trio.current_time() + rest_seconds
        self._told = trio.Event()
        self._session: trio.CancelScope | None = None
        self._session_ended = trio.Event()

    async def run(self, work: Work) -> None:
        """Until ``life`` is cancelled."""
        try:
            with self.life, self.database:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.database.run)
                    while True:
                        await self._alone()
                        await self._work(work)
        finally:
            self.ended.set()

    async def rest(self, seconds: float, *, exactly: bool = False) -> None:
        """Nothing is done for so long from now (or what was said before, if that is longer); from when this returns."""
        alone_at = trio.current_time() + seconds
        self._alone_at = alone_at if exactly else max(self._alone_at, alone_at)
        self._told.set()
        if self._alone_at > trio.current_time() and self._session is not None:
            self._session.cancel()
            await self._session_ended.wait()

    async def _alone(self) -> None:
        while (left := self._alone_at - trio.current_time()) > 0:
            self._told = trio.Event()
            with trio.move_on_after(left):
                await self._told.wait()

    async def _work(self, work: Work) -> None:
        self._session_ended = trio.Event()
        with trio.CancelScope() as self._session:
            try:
                await work(self.grant, self.database, self.entrusted)
            except Exception:  # noqa: BLE001 - supervises the work on one volume: others, and the host, go on
                _log.exception("The work on volume %s has failed", self.grant.volume.hex()[:12])
                await trio.sleep(RETRY_SECONDS)
        self._session = None
        self._session_ended.set()


class Delegations:
    """One host's; ``run`` must be running before anything is asked."""

    def __init__(
        self,
        directory: str,
        identity: NodeIdentity,
        network_id: bytes,
        work: Work,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._grants = Grants(directory)
        self._identity = identity
        self._network_id = network_id
        self._work = work
        self._now = now
        self._volumes: dict[VolumeId, _Volume] = {}
        self._beginning = trio.Lock()
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Raises ``LocalError``."""
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            for grant in await trio.to_thread.run_sync(self._grants.all):
                try:
                    if self._has_passed(grant):
                        await trio.to_thread.run_sync(self._grants.remove, grant.volume)
                    else:
                        await self._begin(self._nursery, grant, 0.0)
                except LayrError as error:
                    _log.warning("Volume %s is not looked after: %s", grant.volume.hex()[:12], error)
            task_status.started()
            while True:
                await self._forget_expired()
                await trio.sleep(EXPIRY_SECONDS)

    @property
    def volumes(self) -> int:
        """How many volumes are looked after."""
        return len(self._volumes)

    def answer(self, request: DelegationRequest, body: memoryview) -> DelegationResponse:
        """See ``layrfs.host.handlers.Delegations``; called from the threads that serve connections."""
        try:
            return trio.from_thread.run(self.respond, request, bytes(body), trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled) as error:
            raise LocalError("the host is stopping") from error

    async def respond(self, request: DelegationRequest, body: bytes) -> DelegationResponse:
        """The same on the trio thread."""
        match request:
            case Delegate():
                return await self._delegate(request, body)
            case Entrust():
                return await self._entrust(request, body)
            case GetPatches():
                return await self._patches(request)
            case Revoke():
                await self._forget(VolumeId(request.volume))
                return Revoked()

    async def _delegate(self, request: Delegate, body: bytes) -> Delegated:
        grant = Grant(VolumeId(request.volume), request.mask, request.until, request.patch_after_seconds)
        if self._has_passed(grant):
            raise BadMessage("a delegation that has ended already")
        async with self._beginning:
            if grant.volume not in self._volumes and len(self._volumes) >= MOST_VOLUMES:
                raise NoSpace(_FULL)
            await trio.to_thread.run_sync(self._grants.save, grant)
            volume = self._volumes.get(grant.volume) or await self._begin(self._nursery, grant, REST_SECONDS)
            volume.grant = grant
        async with self._alone_with(request.volume) as volume:
            wanted = volume.entrusted.wanted(body)
            await volume.rest(request.present_seconds, exactly=True)
        return Delegated(tuple(wanted))

    async def _entrust(self, request: Entrust, body: bytes) -> EntrustedAnswer:
        async with self._alone_with(request.volume) as volume:
            await volume.rest(REST_SECONDS)
            volume.entrusted.replace(request.bucket, body)
            await volume.database.sync()
        return EntrustedAnswer()

    async def _patches(self, request: GetPatches) -> Patches:
        if request.volume not in self._volumes and len(self._volumes) >= MOST_VOLUMES:
            raise NoSpace(_FULL)  # an owner who asks whether to delegate keeps its key
        async with self._alone_with(request.volume) as volume:
            await volume.rest(REST_SECONDS)
            volume.database.commit()
            read = partial(made_here, volume.database.path, request.after, RECORDS_PER_MESSAGE)
            made, more = await trio.to_thread.run_sync(read)
        records = tuple(self._record(request.volume, one) for one in made)
        return Patches(self._identity.public_key, records, more)

    def _record(self, volume: bytes, made: Made) -> PatchRecord:
        return signed(PatchRecord(volume, *made, UNSIGNED), self._identity, self._network_id)

    def _volume(self, volume: bytes) -> _Volume:
        try:
            return self._volumes[VolumeId(volume)]
        except KeyError:
            raise MissingPiece("the host does not look after that volume") from None

    @contextlib.asynccontextmanager
    async def _alone_with(self, volume: bytes) -> AsyncIterator[_Volume]:
        """Nobody else asks something of it meanwhile, or has it forgotten."""
        found = self._volume(volume)
        async with found.lock:
            if self._volume(volume) is not found:
                raise MissingPiece("the volume was just forgotten, and begun anew")
            yield found

    async def _begin(self, nursery: trio.Nursery | None, grant: Grant, rest_seconds: float) -> _Volume:
        if nursery is None:
            raise LocalError("the host is starting")
        database = await trio.to_thread.run_sync(open_entrusted, self._grants.database(grant.volume))
        volume = self._volumes[grant.volume] = _Volume(grant, database, rest_seconds)
        nursery.start_soon(self._run_volume, volume)
        return volume

    async def _run_volume(self, volume: _Volume) -> None:
        try:
            await volume.run(self._work)
        except Exception:  # noqa: BLE001 - supervises one volume: its disk may be full, others and the host go on
            _log.exception("Volume %s is not looked after any more", volume.grant.volume.hex()[:12])
            self._volumes.pop(volume.grant.volume, None)

    async def _forget_expired(self) -> None:
        for volume in [one.grant.volume for one in self._volumes.values() if self._has_passed(one.grant)]:
            with contextlib.suppress(LayrError):
                await self._forget(volume, only_if_passed=True)

    def _has_passed(self, grant: Grant) -> bool:
        return grant.until <= self._now()

    async def _forget(self, name: VolumeId, *, only_if_passed: bool = False) -> None:
        """All that is on the disk; none is begun there meanwhile, nor after it was heard that it goes on."""
        async with self._beginning, self._alone_with(name) as volume:
            if only_if_passed and not self._has_passed(volume.grant):
                return
            _log.info("Volume %s is forgotten", name.hex()[:12])
            del self._volumes[name]
            volume.life.cancel()
            await volume.ended.wait()
            await trio.to_thread.run_sync(self._grants.remove, name)
