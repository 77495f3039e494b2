"""Node records we have verified: from the nodes themselves, or passed on by others.

Owns the records and their freshness; must not know who is alive. Invariant: nothing unverified is ever on the shelf,
and it holds at most ``most`` records, those used longest ago going first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from layrfs.errors import BadMessage
from layrfs.ids import NodeId
from layrfs.model.records import NodeRecord, verified_untrusted

MOST_RECORDS = 2048


class RecordShelf:
    """Records by node id. ``now`` is Unix time."""

    def __init__(self, now: Callable[[], float], most: int = MOST_RECORDS) -> None:
        self._now = now
        self._most = most
        self._kept: OrderedDict[NodeId, tuple[bytes, NodeRecord]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def accept_untrusted(self, data: bytes, node_id: NodeId, *, first_hand: bool) -> NodeRecord:
        """Verify a record said to be this node's, keep it unless a fresher one is here, and answer the one kept.

        First hand (just received from the node itself) is always freshest. The same bytes again cost nothing.
        Raises ``BadMessage``.
        """
        kept = self._kept.get(node_id)
        if kept is not None and kept[0] == data and kept[1].expires > self._now():
            return kept[1]
        record = verified_untrusted(data, self._now())
        if record.node_id != node_id:
            raise BadMessage("a node record of another node")
        if kept is not None and not first_hand and kept[1].expires >= record.expires:
            return kept[1]
        self._kept[node_id] = (data, record)
        self._kept.move_to_end(node_id)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return record

    def get(self, node_id: NodeId) -> NodeRecord | None:
        """The record in force, if there is one."""
        kept = self._current(node_id)
        return kept[1] if kept else None

    def get_bytes(self, node_id: NodeId) -> bytes:
        """The record in force as it was received; empty if there is none."""
        kept = self._current(node_id)
        return kept[0] if kept else b""

    def forget(self, node_id: NodeId) -> None:
        """Drop the record of this node."""
        self._kept.pop(node_id, None)

    def _current(self, node_id: NodeId) -> tuple[bytes, NodeRecord] | None:
        kept = self._kept.get(node_id)
        if kept is None:
            return None
        if kept[1].expires <= self._now():
            del self._kept[node_id]
            return None
        self._kept.move_to_end(node_id)
        return kept
