"""Intents in memory."""

from __future__ import annotations

from layrfs.model.intents import Intent


class MemoryIntents:
    """What a disk would have."""

    def __init__(self) -> None:
        self.kept: dict[bytes, Intent] = {}
        self.log: list[str] = []
        """`keep` and `forget`, in order."""

    def all(self) -> list[Intent]:
        return list(self.kept.values())

    async def keep(self, intent: Intent) -> None:
        self.log.append("keep")
        self.kept[intent.hash] = intent

    async def forget(self, hash_: bytes) -> None:
        self.log.append("forget")
        self.kept.pop(hash_, None)
