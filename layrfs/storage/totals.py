"""How much there is of a volume on hosts: sums over all its rows, read apart from the connection that writes them.

They grow with the volume (a third of a second for a million shards), so they are not for the trio thread. As of the
last commit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

import apsw

from layrfs.errors import LocalError
from layrfs.ids import NodeId
from layrfs.storage import soundness
from layrfs.storage.garbage import MAY_BE_NEEDED

_DEAD = "SELECT coalesce(sum(s.plain_bytes), 0) FROM dead d JOIN shard s ON s.number = d.shard"
_PER_HOST = "SELECT h.node_id, (SELECT count(*) FROM piece p WHERE p.host = h.number) FROM host h ORDER BY h.number"


class Totals(NamedTuple):
    """Of one moment."""

    shards: int
    plain_bytes: int
    """Of all of them."""
    dead_bytes: int
    """Of those that nothing needs, but perhaps a retained version."""
    pieces: Mapping[NodeId, int]
    """How many each host should have; hosts that were ever met may have none."""
    needed: int = 0
    """How many of the shards that were asked about files or snapshots need."""

    @property
    def live_bytes(self) -> int:
        """Of those that files need."""
        return self.plain_bytes - self.dead_bytes


def count_totals(path: str, shards: Collection[int] = ()) -> Totals:
    """``shards``: a few that are looked at one by one. Blocks: for a thread. Raises ``CorruptFile``, ``LocalError``."""
    try:
        with contextlib.closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            connection.execute("BEGIN")
            count, plain_bytes = connection.execute("SELECT count(*), coalesce(sum(plain_bytes), 0) FROM shard").get
            dead_bytes = connection.execute(_DEAD).get
            needed = sum(connection.execute(MAY_BE_NEEDED, (shard,)).get for shard in shards)
            pieces = {NodeId(node): number for node, number in connection.execute(_PER_HOST)}
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise soundness.damaged(path, str(error)) from error
    except apsw.Error as error:
        raise LocalError(f"The database {path} cannot be read: {error}") from error
    return Totals(count, plain_bytes, dead_bytes, pieces, needed)
