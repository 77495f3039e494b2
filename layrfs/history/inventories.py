"""All hosts of a network asked for what they keep of one volume.

Owns the search for hosts and the conversation with each. Must not know what is done with pieces. A host's word is
taken only where the volume's mask key confirms it: what it lists comes with notes that only the owner can write.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec
import trio

from layrfs.crypto.keys import tenant_private
from layrfs.errors import BadMessage, RemoteError
from layrfs.ids import NODE_ID_BYTES, PIECE_ID_BYTES, NodeId, PieceId
from layrfs.model.notes import PieceNote, opened_untrusted
from layrfs.model.records import HostAddress, NodeRecord
from layrfs.pipeline.finding import HostFinder
from layrfs.storage.sightings import Sightings
from layrfs.wire.messages import Listing

_log = logging.getLogger(__name__)

SEARCH_SECONDS = 120.0
LOOKED_AROUND = 20
QUIET_LOOKS = 8
"""So many looks into random places of the network that bring no new host end the search."""

PAUSE_SECONDS = 0.5
HOSTS_AT_ONCE = 8
HOST_SECONDS = 3600.0
"""For one host's whole inventory: one with a million pieces of others needs minutes, one that lies would not end."""

TRIES = 4
CALL_SECONDS = 30.0


class Inventories(Protocol):
    """``layrfs.network.links.HostLinks``, or a fake."""

    def inventory(
        self, host: HostAddress, after: PieceId, tenant_private: bytes, *, deadline_seconds: float
    ) -> Listing: ...


class Taken(msgspec.Struct, frozen=True):
    """How many hosts were asked, and which of them did not tell everything."""

    hosts: int
    broken_off: tuple[NodeId, ...]


async def every_host(finder: HostFinder) -> list[NodeRecord]:
    """All hosts that can be found; the search ends when looking around brings nothing new."""
    hosts: dict[NodeId, NodeRecord] = {}
    quiet = 0
    with trio.move_on_after(SEARCH_SECONDS):
        while quiet < QUIET_LOOKS or not hosts:
            before = len(hosts)
            near = await finder.closest_hosts(secrets.token_bytes(NODE_ID_BYTES), LOOKED_AROUND)
            hosts.update((host.node_id, host) for host in [*near, *finder.known_hosts()] if host.tcp_port)
            quiet = 0 if len(hosts) > before else quiet + 1
            await trio.sleep(PAUSE_SECONDS if quiet else 0)
    return list(hosts.values())


async def take_inventories(
    hosts: list[NodeRecord],
    links: Inventories,
    mask: bytes,
    sightings: Sightings,
    progress: Callable[[str], None],
    pause_seconds: float = PAUSE_SECONDS,
) -> Taken:
    """Every host's list into the sightings; one that fails half-way has told what it told."""
    broken_off: list[NodeId] = []
    places, threads = trio.CapacityLimiter(HOSTS_AT_ONCE), trio.CapacityLimiter(HOSTS_AT_ONCE)
    pieces, done = 0, 0

    async def ask(host: NodeRecord) -> None:
        nonlocal pieces, done
        async with places:
            complete = False
            with trio.move_on_after(HOST_SECONDS):
                after: PieceId | None = PieceId(bytes(PIECE_ID_BYTES))
                while after is not None:
                    page = await _page(host, links, mask, after, threads, pause_seconds)
                    if page is None:
                        break
                    found, after = page
                    sightings.add(host.node_id, found)
                    pieces += len(found)
                    progress(f"{done} of {len(hosts)} hosts asked, {pieces} pieces found")
                complete = after is None
            done += 1
            if not complete:
                broken_off.append(host.node_id)

    async with trio.open_nursery() as nursery:
        for host in hosts:
            nursery.start_soon(ask, host)
    return Taken(len(hosts), tuple(broken_off))


Found = list[tuple[PieceId, int, PieceNote]]


async def _page(
    host: NodeRecord,
    links: Inventories,
    mask: bytes,
    after: PieceId,
    threads: trio.CapacityLimiter,
    pause_seconds: float,
) -> tuple[Found, PieceId | None] | None:
    """The next pieces that are ours, and where to go on; None when the host does not tell."""
    for tried in range(TRIES):
        if tried:
            await trio.sleep(pause_seconds * 2**tried)
        try:
            return await trio.to_thread.run_sync(
                partial(_asked, host.address, links, mask, after), abandon_on_cancel=True, limiter=threads
            )
        except BadMessage as error:
            _log.warning("host %s: %s", host.node_id.hex()[:12], error)
            return None
        except RemoteError as error:
            _log.info("host %s: %s", host.node_id.hex()[:12], error)
    return None


def _asked(host: HostAddress, links: Inventories, mask: bytes, after: PieceId) -> tuple[Found, PieceId | None]:
    listing = links.inventory(host, after, tenant_private(mask, host.node_id), deadline_seconds=CALL_SECONDS)
    found: Found = []
    for listed in listing.pieces:
        try:
            found.append((listed.piece, listed.stored, opened_untrusted(mask, listed.piece, listed.note)))
        except BadMessage as error:
            _log.warning("host %s, piece %s: %s", host.node_id.hex()[:12], listed.piece.hex()[:12], error)
    return found, listing.through
