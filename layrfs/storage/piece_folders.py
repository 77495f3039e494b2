"""The folders of a piece store and the names in them.

Owns `pieces/`, `incoming/`, `quarantine/` and `format` of a host's directory. Must not know what is in the files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from layrfs.durable import make_directory, sync_directory, write_atomically
from layrfs.errors import CorruptFile, NewerFormat
from layrfs.ids import PIECE_ID_BYTES, PieceId
from layrfs.storage.piece_file import disk_bytes

FORMAT_VERSION = 1
QUARANTINE_FILES = 64
"""Only the newest are kept."""


class PieceFolders:
    """Made when they are not there; what a crash left unfinished is removed."""

    def __init__(self, directory: str) -> None:
        """Raises OSError, NewerFormat, CorruptFile."""
        self.root = os.path.join(directory, "pieces")
        self._incoming = os.path.join(directory, "incoming")
        self._quarantine = os.path.join(directory, "quarantine")
        self._prepare(directory)

    def path(self, piece: PieceId) -> str:
        """Where a piece's file is, or would be."""
        name = piece.hex()
        return os.path.join(self.root, name[:2], name)

    def temporary(self, piece: PieceId, serial: int) -> str:
        """Where a piece's file is until it is whole; no serial number twice."""
        return os.path.join(self._incoming, f"{piece.hex()}.{serial}")

    def pieces(self, after: bytes = b"") -> Iterator[PieceId]:
        """All pieces with greater ids, ascending; one directory's names are in memory at a time."""
        for name in sorted(os.listdir(self.root)):
            if name < after.hex()[:2]:
                continue
            with contextlib.suppress(OSError):
                for file_name in sorted(os.listdir(os.path.join(self.root, name))):
                    piece = _parse_name(file_name)
                    if piece is not None and piece > after:
                        yield piece

    def measure(self) -> tuple[int, int]:
        """What all pieces' files take of the disk, in bytes, and their number."""
        sizes = [
            disk_bytes(entry.stat().st_size)
            for number in range(256)
            for entry in os.scandir(os.path.join(self.root, f"{number:02x}"))
        ]
        return sum(sizes), len(sizes)

    def quarantined(self) -> int:
        """How many files are set aside."""
        return len(os.listdir(self._quarantine))

    def set_aside(self, piece: PieceId) -> None:
        """Move a piece's file out of the way, for a person to look at."""
        os.rename(self.path(piece), os.path.join(self._quarantine, piece.hex()))
        paths = [entry.path for entry in os.scandir(self._quarantine)]
        if len(paths) > QUARANTINE_FILES:
            os.unlink(min(paths, key=os.path.getctime))

    def _prepare(self, directory: str) -> None:
        _check_format(os.path.join(directory, "format"))
        for path in (self.root, self._incoming, self._quarantine):
            make_directory(path)
        for number in range(256):
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.join(self.root, f"{number:02x}"), 0o700)
        for name in os.listdir(self._incoming):
            os.unlink(os.path.join(self._incoming, name))
        sync_directory(self.root)
        if not os.path.exists(os.path.join(directory, "format")):
            write_atomically(os.path.join(directory, "format"), f"{FORMAT_VERSION}\n".encode())


def _parse_name(name: str) -> PieceId | None:
    try:
        piece = bytes.fromhex(name)
    except ValueError:
        return None
    return PieceId(piece) if len(piece) == PIECE_ID_BYTES else None


def _check_format(path: str) -> None:
    try:
        with open(path, encoding="ascii") as file:
            version = int(file.read(16))
    except FileNotFoundError:
        return
    except ValueError:
        raise CorruptFile(f"{path} should hold one number; is this directory a host's?") from None
    if version > FORMAT_VERSION:
        raise NewerFormat(f"{os.path.dirname(path)} was written by a newer LayrFS; update this one")
