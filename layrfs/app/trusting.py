"""What a drive makes of hosts' long memories: who gets no new pieces, and what its own reading says of a host.

Decides nothing: which memory amounts to what is ``policy.trust``'s. A host that a reader could not reach is no news
here, because it may be our own line; auditors find out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from layrfs.ids import NodeId
from layrfs.pipeline.jobs import Outcome as Fetching
from layrfs.policy.patching import PieceState, piece_state
from layrfs.policy.trust import Outcome, silent_seconds
from layrfs.storage.trust import Trusts
from layrfs.tempo import now_seconds

_OUTCOMES: dict[Fetching, Outcome] = {"good": "passed", "wrong": "failed", "missing": "missing", "refused": "refused"}


class Trusting:
    """One drive's."""

    def __init__(
        self,
        trusts: Trusts,
        own_node: NodeId,
        patch_after_seconds: float,
        is_leaving: Callable[[NodeId], bool],
        unpaid: Callable[[], Collection[NodeId]],
    ) -> None:
        """``own_node`` gets no pieces: a copy on the owner's machine would die with it.

        What a host has is not counted on when it was silent for ``patch_after_seconds``. ``is_leaving``: whether it
        has said that it will end; ``unpaid``: hosts that are going to let their pieces go, as nobody pays for them.
        """
        self.trusts = trusts
        self._own_node = own_node
        self._is_leaving = is_leaving
        self._unpaid = unpaid
        self.patch_after_seconds = patch_after_seconds

    def excluded(self) -> set[NodeId]:
        """Hosts that get no new pieces now."""
        return {self._own_node, *self.trusts.excluded()}

    def state_of(self, host: NodeId) -> PieceState:
        """Of a piece there, nothing being known against the piece itself."""
        trust, now = self.trusts.get(host), now_seconds()
        found = "gone" if silent_seconds(trust, now) >= self.patch_after_seconds else piece_state(trust, now)
        return "leaving" if found != "gone" and (self._is_leaving(host) or host in self._unpaid()) else found

    def is_going(self, host: NodeId) -> bool:
        """Whether a piece there, of a file or of metadata, has to be somewhere else as well."""
        return self.state_of(host) in {"leaving", "gone"}

    def fetched(self, host: NodeId, outcome: Fetching) -> None:
        """A host was asked for a piece, by somebody who wants to read it."""
        if outcome in _OUTCOMES:
            self.trusts.heard(host, _OUTCOMES[outcome], retrieval=True)
