"""This machine's right to write to a volume, as far as it is published.

Owns what the lease of the next version says, and the proof that nobody else writes. Must not know segments or files.
Invariant: who is told that another machine has taken over was shown its record, signed by the volume.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, Protocol

from layrfs.crypto.keys import VolumeKeys
from layrfs.crypto.root_body import open_root_body
from layrfs.errors import RemoteError, Superseded, Unavailable
from layrfs.history.roots import Kept
from layrfs.ids import NodeId
from layrfs.model.history import History, Lease
from layrfs.model.root_record import RootRecord
from layrfs.policy.leasing import LEASE_SECONDS, outcome, renewal_due

Conduct = Literal["write", "finish", "watch"]
"""``write``: hold the lease. ``finish``: publish what is left from before, without one. ``watch``: publish nothing."""


class NewestRoot(Protocol):
    """``layrfs.history.roots.Roots``, or a fake."""

    async def fetch(self) -> RootRecord | None: ...


class RootPublisher(NewestRoot, Protocol):
    """The same, of who writes."""

    async def publish(self, record: RootRecord) -> Kept: ...


class Tenure:
    """One mount's."""

    def __init__(
        self,
        *,
        device: NodeId,
        name: str,
        keys: VolumeKeys,
        roots: NewestRoot,
        conduct: Conduct = "write",
        now: Callable[[], float] = time.time,
    ) -> None:
        """``name`` is what people call the machine; ``now`` tells seconds since 1970."""
        self._device = device
        self.name = name
        self._keys = keys
        self._roots = roots
        self._conduct = conduct
        self._now = now
        self._is_held = conduct == "write"

    @property
    def publishes(self) -> bool:
        """Whether this mount publishes at all."""
        return self._conduct != "watch"

    def lease(self) -> Lease:
        """What a version signed now says."""
        return Lease(self._device, self.name, int(self._now() * 1000) + LEASE_SECONDS * 1000 if self._is_held else 0)

    def is_renewal_due(self, lease: Lease | None) -> bool:
        """Whether a version has to be published for its lease alone, when the newest has this one."""
        return self._is_held and renewal_due(lease, self._device, int(self._now() * 1000))

    def give_up(self) -> bool:
        """From now on versions say that anybody may write; whether the lease was held until now."""
        was_held, self._is_held = self._is_held, False
        return was_held

    async def look(self, known: RootRecord | None) -> None:
        """See that ``known`` is the newest version. Raises ``Superseded``, ``Unavailable``."""
        found = await self._roots.fetch()
        if found is not None and (
            known is None or outcome(known.version, found.version, same=found == known) == "lost"
        ):
            raise self._superseded(found)

    async def prove(self, record: RootRecord) -> None:
        """See that hosts keep ``record`` and prefer it to any other. Raises ``Superseded``, ``Unavailable``."""
        found = await self._roots.fetch()
        match outcome(record.version, None if found is None else found.version, same=found == record):
            case "lost" if found is not None:
                raise self._superseded(found)
            case "won":
                return
            case _:
                raise Unavailable("The hosts that refuse the root record show no reason.")

    def _superseded(self, found: RootRecord) -> Superseded:
        return Superseded(
            f"{writer_of(found, self._keys)} has taken over this volume. It is read-only here from now on: what is not "
            "on the network yet stays on this disk, and the next mount sets it aside."
        )


def history_of(record: RootRecord, keys: VolumeKeys) -> History:
    """What a record of our volume says. Raises ``WrongBytes``, ``BadMessage``."""
    return History.from_bytes(open_root_body(keys.content, keys.volume_id, record.version, record.body))


def writer_of(record: RootRecord, keys: VolumeKeys) -> str:
    """The name of the machine that wrote a record, for a sentence."""
    try:
        return history_of(record, keys).device or "Another machine"
    except RemoteError:
        return "Another machine"
