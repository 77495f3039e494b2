"""The frozen head of a piece's file on a host's disk."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from blake3 import blake3

from layrfs.storage.piece_file import PieceHead


def test_piece_file() -> None:
    vector = json.loads((Path(__file__).parent / "piece_file.json").read_text("utf-8"))
    data = bytes.fromhex(vector["head"])
    head = PieceHead.from_bytes(data)
    note = bytes.fromhex(vector["note"])
    assert head == PieceHead(bytes.fromhex(vector["tenant"]), vector["stored"], vector["length"], note)
    assert head.to_bytes() == data
    numbers = (len(note), head.tenant, head.stored, head.length, note)
    fields = struct.pack("<4sBB2x32sQQ64s", b"LYRP", 2, *numbers)
    assert data == fields + blake3(fields, derive_key_context="LayrFS v1 piece file head").digest()[:8]
