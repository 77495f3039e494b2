"""Snapshots that were opened beforehand: file systems in a dictionary, and who looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from layrfs.errors import LayrError, NotFound
from layrfs.storage.versions import Version
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.namespace import Look


@dataclass
class FakeSnapshots:
    """``failure`` is what opening raises."""

    versions: dict[str, Version] = field(default_factory=dict)
    filesystems: dict[int, Filesystem] = field(default_factory=dict)
    failure: LayrError | None = None
    looks: int = 0
    opened: int = 0

    def by_name(self) -> Mapping[str, Version]:
        return self.versions

    async def acquire(self, number: int) -> Look:
        if self.failure is not None:
            raise self.failure
        if number not in self.filesystems:
            raise NotFound("It is gone.")
        self.looks += 1
        self.opened += 1
        return Look(self.filesystems[number], self._release)

    def _release(self) -> None:
        self.looks -= 1
