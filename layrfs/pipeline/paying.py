"""What placing and moving pieces has to know of money: who may be asked at what price, and what is to be digested.

Owns the port. The real one is ``layrfs.app.paying``; ``OnlyFree`` is for who pays nobody, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from layrfs.ids import PieceId
from layrfs.model.payables import PieceDigests, Salts
from layrfs.model.records import NodeRecord
from layrfs.model.shards import PieceRecord


class Market(Protocol):
    """Called on the trio thread; all but ``agree`` at once."""

    def highest_price(self) -> int:
        """Stroops per TiB and 30 days; hosts that ask for more are left alone. 0: only free ones are asked."""
        ...

    async def agree(self, host: NodeRecord, piece: PieceId, piece_bytes: int) -> Salts:
        """Returns when the host will be paid for the piece, if it takes it. Raises ``Unavailable``."""
        ...

    def lacking(self, piece: PieceRecord) -> Salts | None:
        """What to digest a piece under whose bytes are at hand; None when nothing is lacking."""
        ...

    def keep(self, digests: Iterable[PieceDigests]) -> None:
        """They were made, of pieces that hosts have."""
        ...


class OnlyFree:
    """Nobody is paid."""

    def highest_price(self) -> int:
        """Nothing."""
        return 0

    async def agree(self, host: NodeRecord, piece: PieceId, piece_bytes: int) -> Salts:
        """Never asked: nobody who wants money is chosen."""
        raise AssertionError(f"host {host.node_id.hex()} was chosen for {piece_bytes} bytes of {piece.hex()}")

    def lacking(self, _piece: PieceRecord) -> Salts | None:
        """Nothing."""
        return None

    def keep(self, _digests: Iterable[PieceDigests]) -> None:
        """There are none."""
