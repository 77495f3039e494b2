"""What whoever holds the mask key can do: make pieces of pieces, and tell which are right. And what not: read."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from layrfs.crypto import labels
from layrfs.crypto.keys import derive
from layrfs.errors import LocalError, Unavailable
from layrfs.ids import Salt, VolumeId
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.coding import unmask
from layrfs.pipeline.fetching import download, examine
from layrfs.pipeline.jobs import Download, Examine, Identify, TopUp, Upload, WorkerKeys
from layrfs.pipeline.ports import Tools
from layrfs.pipeline.sealing import SealingKeys
from layrfs.pipeline.storing import identify, top_up, upload
from layrfs.pipeline.transfers import Slot, SourcePart, TargetPart
from tests.unit.pipeline.jobs_in_process import VOLUME_KEYS, Bench, FakeForeman, bench, host, plan

DATA = b"what nobody else may read, " * 3000
GCM_HEADER_BYTES = 22


def delegates(at: Bench) -> Tools:
    """The same hosts, with the keys that a delegate's worker gets."""
    keys = WorkerKeys.for_repair(VOLUME_KEYS.mask, VOLUME_KEYS.volume_id, bytes(32), bytes(32))
    sealing = SealingKeys(keys.content, keys.digest, keys.volume)
    return msgspec.structs.replace(at.tools, keys=sealing, mask=keys.mask)


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return str(path)


@pytest.mark.parametrize("redundancy", [Redundancy(1, 3), Redundancy(2, 4)], ids=str)
def test_a_piece_made_with_the_mask_key_alone_is_the_one_that_the_owner_would_make(
    source: str, redundancy: Redundancy
) -> None:
    with bench() as at:
        shard = at.coded(source, len(DATA), redundancy)
        foreman = FakeForeman(5)
        foreman.free = [host(5)]
        (made,) = top_up(delegates(at), foreman, TopUp(1, plan(shard), (Slot(1, 7),)), []).pieces
        slots = (Slot(0, 0), Slot(1, 7), Slot(1, 0))
        told = identify(at.tools, FakeForeman(0), Identify(1, plan(shard), slots), []).ids
        assert told == (shard.pieces[0].id, made.id, shard.pieces[1].id)
        assert identify(delegates(at), FakeForeman(0), Identify(1, plan(shard), slots), []).ids == told


def test_a_delegate_can_neither_read_nor_write_contents(source: str, tmp_path: Path) -> None:
    with bench() as at:
        shard, target = at.stored(source, len(DATA)), str(tmp_path / "target")
        tools, foreman = delegates(at), FakeForeman(5)
        with pytest.raises(LocalError, match="no key of contents"):
            download(tools, foreman, Download(1, plan(shard), (TargetPart(target, 0, 0, len(DATA)),)), [])
        with pytest.raises(LocalError, match="no key of contents"):
            examine(tools, foreman, Examine(1, plan(shard), None), [])
        part = SourcePart(2, 0, source, 0, len(DATA))
        with pytest.raises((LocalError, ValueError)):
            upload(tools, foreman, Upload(1, (part,), Redundancy(1, 1)))
        assert not Path(target).exists()
        assert foreman.wishes == []


def test_no_key_made_of_what_a_delegate_has_opens_a_shard(source: str) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA))
        piece: PieceRecord = shard.pieces[0]
        sealed = bytearray(at.shelf(1).pieces[piece.id])
        unmask(VOLUME_KEYS.mask, shard.salt, Slot(piece.position, piece.generation), sealed)
    assert sealed[:4] == b"LYRS"
    header, body = bytes(sealed[:GCM_HEADER_BYTES]), bytes(sealed[GCM_HEADER_BYTES:])
    assert opens(VOLUME_KEYS.shard_key(shard.salt), header, body, VOLUME_KEYS.volume_id)
    infos = [labels.SHARD_KEY, labels.CONTENT_KEY, labels.DIGEST_KEY, labels.ROOT_BODY, labels.PIECE_MASK]
    have = {VOLUME_KEYS.mask, VOLUME_KEYS.volume_id, bytes(shard.id), shard.salt.ljust(32, b"\0")}
    have |= {derive(key, info, salt=salt) for key, info, salt in itertools.product(have, infos, (b"", shard.salt))}
    have |= {derive(key, info, salt=salt) for key, info, salt in itertools.product(have, infos, (b"", shard.salt))}
    assert not any(opens(key, header, body, VOLUME_KEYS.volume_id) for key in have)


def opens(key: bytes, header: bytes, body: bytes, volume: VolumeId) -> bool:
    try:
        return AESGCM(key).decrypt(bytes(12), body, header + volume) != b""
    except InvalidTag:
        return False


def test_identify_tells_nothing_of_a_shard_whose_pieces_are_rubbish(source: str) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA), copies=1)
        other = ShardRecord(shard.id, Salt(bytes(16)), 5, shard.sealed_bytes, shard.redundancy, shard.pieces)
        with pytest.raises(Unavailable):
            identify(at.tools, FakeForeman(0), Identify(1, plan(other), (Slot(1, 1),)), [])
