"""What paying hosts needs of a drive, as one value."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from layrfs.ids import NodeId
from layrfs.network.links import HostLinks
from layrfs.pipeline.finding import HostFinder
from layrfs.pipeline.pooled import PooledTransfers
from layrfs.storage.trust import Trusts
from layrfs.upkeep.asking import Asker
from layrfs.upkeep.holdings import Holdings


class Reach(msgspec.Struct, frozen=True):
    """``holders``: the hosts that should have pieces of the volume, its own metadata included."""

    transfers: PooledTransfers
    holdings: Holdings
    holders: Callable[[], Collection[NodeId]]
    asker: Asker
    trusts: Trusts
    links: HostLinks
    finder: HostFinder
