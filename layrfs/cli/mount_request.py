"""What somebody wants mounted, as a value: read off the command line by ``mount``, carried out by ``serve``.

Importing this needs the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

from layrfs.config import MountOptions, Paths


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What the command line asks for. ``mountpoint`` is None for a node without a mount; the volume may not exist."""

    volume: str
    volume_named: bool
    mountpoint: str | None
    options: MountOptions
    option_text: str
    passfile: str | None
    home: str | None
    foreground: bool = False
    ready_fd: int | None = None
    set_up: bool = False
    clean: bool = False
    talkative: bool = False

    def paths(self) -> Paths:
        """Where the state is; a background process is told by its environment."""
        if self.ready_fd is not None:
            return Paths.from_environment()
        return Paths.under(self.home) if self.home else Paths.from_environment()
