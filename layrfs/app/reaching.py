"""The network for a command that works on a volume nobody has mounted.

Owns the order in which its parts start and end. Must not know what they are used for.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from layrfs.app.membership import Membership
from layrfs.config import MountOptions, Paths
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import Unavailable
from layrfs.history.restoring import transfers_alone
from layrfs.history.roots import Roots
from layrfs.ids import NodeId
from layrfs.model.records import NodeRecord
from layrfs.network.links import HostLinks
from layrfs.pipeline.jobs import WorkerKeys
from layrfs.pipeline.pooled import PooledTransfers
from layrfs.storage.keyring import load_or_create_identity

NETWORK_SECONDS = 30.0
"""How long hosts are sought."""


class Network(NamedTuple):
    """Hosts, and the ways to speak to them; ``device`` is who we are to them."""

    device: NodeId
    membership: Membership
    transfers: PooledTransfers
    links: HostLinks
    roots: Roots


@asynccontextmanager
async def network_of(
    paths: Paths, volume: str, keys: VolumeKeys, remembered: Mapping[NodeId, NodeRecord]
) -> AsyncIterator[Network]:
    """The volume's network while the block runs. Raises ``Unavailable`` when it cannot be reached."""
    identity = load_or_create_identity(paths.node_key(volume))
    membership = Membership(paths, identity, MountOptions(), keys, remembered)
    async with trio.open_nursery() as nursery:
        await nursery.start(membership.run)
        with trio.move_on_after(NETWORK_SECONDS) as patience:
            network_id = await membership.network_id()
        if patience.cancelled_caught:
            raise Unavailable("The network cannot be reached; check the seeds.")
        worker_keys, links = WorkerKeys.of(keys, identity.private, network_id), HostLinks(identity, network_id)
        with contextlib.closing(links):
            async with transfers_alone(worker_keys, membership, workers=MountOptions().workers) as transfers:
                roots = Roots(links, membership, keys.volume_id)
                yield Network(identity.node_id, membership, transfers, links, roots)
        nursery.cancel_scope.cancel()
