"""Root records to and from the hosts that keep them.

Owns the choice of those hosts. Must not know what a record says. Invariant: what is answered was signed by the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec
import trio

from layrfs.errors import BadMessage, RemoteError, Unavailable
from layrfs.ids import NodeId, VolumeId
from layrfs.model.records import NodeRecord
from layrfs.model.root_record import RootRecord, newest, root_places, verified_untrusted
from layrfs.network.connections import HostRefused
from layrfs.network.links import HostLinks
from layrfs.pipeline.finding import HostFinder

COPIES_PER_PLACE = 3
ASKED_PER_PLACE = 6
"""More than keep it: hosts come and go between writing and reading."""

CALLS_AT_ONCE = 12
DEADLINE_SECONDS = 15.0

T = TypeVar("T")


class Kept(msgspec.Struct, frozen=True):
    """How a publication went: how many hosts keep the record, and whether one of them has another that is as new."""

    hosts: int
    stale: bool


class Shown(msgspec.Struct, frozen=True):
    """The newest record of those that hosts showed, and which hosts showed it; None and nobody when they have none."""

    record: RootRecord | None
    holders: tuple[NodeRecord, ...]


class Roots:
    """The root records of one volume."""

    def __init__(self, links: HostLinks, finder: HostFinder, volume: VolumeId) -> None:
        self._links = links
        self._finder = finder
        self._volume = volume
        self._limiter = trio.CapacityLimiter(CALLS_AT_ONCE)

    async def publish(self, record: RootRecord) -> Kept:
        """Have the hosts nearest to the volume's places keep a record."""
        data = record.to_bytes()
        kept, stale = 0, False

        async def put(host: NodeRecord) -> None:
            nonlocal kept, stale
            try:
                await self._call(partial(self._links.put_root, host.address, data, deadline_seconds=DEADLINE_SECONDS))
            except HostRefused as error:
                if error.reason == "stale":
                    stale = await self._shows_why(host, record) or stale
            except RemoteError:
                self._finder.suspect(host.node_id)
            else:
                kept += 1

        async with trio.open_nursery() as nursery:
            for host in await self._hosts(COPIES_PER_PLACE):
                nursery.start_soon(put, host)
        return Kept(kept, stale)

    async def fetch(self) -> RootRecord | None:
        """The newest record that any of the asked hosts has; None when they answer and have none.

        Raises ``Unavailable`` when no host answers.
        """
        return (await self.survey()).record

    async def survey(self, hosts: Sequence[NodeRecord] = ()) -> Shown:
        """Ask these hosts for the newest record, or all that could know. Raises ``Unavailable`` when none answers."""
        found: list[tuple[RootRecord, NodeRecord]] = []
        answers = 0

        async def ask(host: NodeRecord) -> None:
            nonlocal answers
            try:
                record = await self._ask(host)
            except BadMessage:
                return
            except RemoteError:
                self._finder.suspect(host.node_id)
                return
            answers += 1
            if record is not None:
                found.append((record, host))

        async with trio.open_nursery() as nursery:
            for host in hosts or await self._hosts(ASKED_PER_PLACE):
                nursery.start_soon(ask, host)
        if not answers:
            raise Unavailable("No host answers that could know the volume.")
        best = newest(record for record, _host in found)
        return Shown(best, tuple(host for record, host in found if record == best))

    async def keepers(self) -> int:
        """How many of the hosts that could know show the newest record."""
        try:
            shown = await self.survey()
        except Unavailable:
            return 0
        return len(shown.holders)

    async def _shows_why(self, host: NodeRecord, record: RootRecord) -> bool:
        """Whether a host that calls a record stale has the reason: its word alone must not stop the owner."""
        try:
            other = await self._ask(host)
        except RemoteError:
            other = None
        if other is not None and other.version >= record.version and other != record:
            return True
        self._finder.suspect(host.node_id)
        return False

    async def _ask(self, host: NodeRecord) -> RootRecord | None:
        """The volume's record that a host has. Raises ``BadMessage`` when what it shows is none, ``RemoteError``."""
        data = await self._call(
            partial(self._links.get_root, host.address, self._volume, deadline_seconds=DEADLINE_SECONDS)
        )
        record = None if data is None else verified_untrusted(data)
        if record is not None and record.volume != self._volume:
            raise BadMessage("a host showed the root record of another volume")
        return record

    async def _hosts(self, count: int) -> list[NodeRecord]:
        hosts: dict[NodeId, NodeRecord] = {}
        for place in root_places(self._volume):
            hosts.update((host.node_id, host) for host in await self._finder.closest_hosts(place, count))
        return list(hosts.values())

    async def _call(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._limiter)
