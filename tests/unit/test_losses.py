"""The sentence about what hosts have lost."""

from __future__ import annotations

from layrfs.app.losses import Losses
from layrfs.ids import NodeId, PieceId


def test_nothing_lost_is_nothing_to_say() -> None:
    assert Losses().sentence() is None


def test_pieces_count_once_and_many_hosts_are_summed_up() -> None:
    losses = Losses()
    for number in range(5):
        losses.add(PieceId(bytes([number % 4]) * 32), NodeId(bytes([number]) * 20))
    sentence = losses.sentence()
    assert sentence is not None
    assert sentence.startswith(
        "4 pieces were wrong or missing at hosts 000000000000, 010101010101, 020202020202 and 2 more"
    )
