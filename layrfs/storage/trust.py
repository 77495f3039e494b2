"""What this machine remembers of each host, over years: the table ``local_trust``.

Owns the rows, and when they are written; what an outcome does to a memory is ``policy.trust``'s. Must not know how
hosts are asked. Invariant: a row that cannot be read is a new host, never an error: it is opinion, not data.

A piece that was fetched well is written down with the next audit only: whoever reads much writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from layrfs.ids import NodeId
from layrfs.policy.patching import piece_state
from layrfs.policy.trust import NEW_HOST, Outcome, Standing, Trust, after, standing
from layrfs.storage.database import Database
from layrfs.tempo import now_seconds

JUDGED_SECONDS = 5.0
"""How long what was found about all hosts holds: looking at a thousand takes milliseconds, and every upload asks."""


class Trusts:
    """One volume's; plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database, now: Callable[[], float] = now_seconds) -> None:
        self._database = database
        self._now = now
        rows = database.rows("SELECT host, memory FROM local_trust")
        self._memories = {NodeId(host): trust for host, memory in rows if (trust := _decoded(memory)) is not None}
        self._standing_of: dict[Standing, frozenset[NodeId]] = {}
        self._judged_at = 0.0

    def get(self, host: NodeId) -> Trust:
        """``NEW_HOST`` of one that was never asked."""
        return self._memories.get(host, NEW_HOST)

    def heard(self, host: NodeId, outcome: Outcome, *, retrieval: bool = False) -> Trust:
        """A host was asked to prove that it has a piece, or with ``retrieval`` for the piece, and this came of it."""
        trust = self._memories[host] = after(self.get(host), outcome, self._now(), retrieval=retrieval)
        if not retrieval or outcome != "passed":
            memory = msgspec.msgpack.encode(trust)
            self._database.write("INSERT OR REPLACE INTO local_trust VALUES(?, ?)", (host, memory))
        if outcome != "passed":
            self._standing_of.clear()
        return trust

    def standing(self, host: NodeId) -> Standing:
        """Of a host, now."""
        return standing(self.get(host), self._now())

    def doubted(self) -> set[NodeId]:
        """Hosts whose pieces are not counted on now."""
        now = self._now()
        return {host for host, trust in self._memories.items() if piece_state(trust, now) != "good"}

    def suspended(self) -> frozenset[NodeId]:
        """Hosts that get no new pieces now, if others take them."""
        return self._standing_at("suspended")

    def excluded(self) -> frozenset[NodeId]:
        """Hosts that get no new pieces now."""
        return self._standing_at("excluded")

    def _standing_at(self, wanted: Standing) -> frozenset[NodeId]:
        now = self._now()
        if abs(now - self._judged_at) >= JUDGED_SECONDS:
            self._standing_of.clear()
        if wanted not in self._standing_of:
            found = (host for host, trust in self._memories.items() if standing(trust, now) == wanted)
            self._standing_of[wanted] = frozenset(found)
            self._judged_at = now
        return self._standing_of[wanted]


def _decoded(memory: bytes) -> Trust | None:
    try:
        return msgspec.msgpack.decode(memory, type=Trust)
    except msgspec.MsgspecError:
        return None
