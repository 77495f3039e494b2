"""Manifests: there and back for any file, and nothing in a foreign one can point outside of file or shard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import BadMessage
from layrfs.ids import BlockNumber, NodeId, PieceId, Salt, ShardId, VolumeId
from layrfs.model import manifest as module
from layrfs.model.manifest import Manifest, ManifestBlock, ManifestShard
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord

BLOCK = 65536

names = st.binary(min_size=1, max_size=255).filter(
    lambda name: name not in {b".", b".."} and not set(name) & set(b"/\0")
)
ids = st.binary(min_size=32, max_size=32)


@st.composite
def shard_records(draw: st.DrawFn) -> ShardRecord:
    total = draw(st.integers(1, 16))
    positions = draw(st.lists(st.integers(0, total - 1), unique=True, max_size=total))
    hosts = st.binary(min_size=20, max_size=20)
    return ShardRecord(
        id=ShardId(draw(ids)),
        salt=Salt(draw(st.binary(min_size=16, max_size=16))),
        plain_bytes=draw(st.integers(BLOCK, 4 << 20)),
        sealed_bytes=draw(st.integers(1, 4 << 20)),
        redundancy=Redundancy(draw(st.integers(1, max(1, total - 1))), total),
        pieces=tuple(
            PieceRecord(position, draw(st.integers(0, 2**32 - 1)), PieceId(draw(ids)), NodeId(draw(hosts)))
            for position in positions
        ),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    numbers = draw(st.lists(st.integers(0, 1000), unique=True, max_size=6))
    shards = [
        ManifestShard(
            record, (ManifestBlock(BlockNumber(number), draw(st.integers(0, record.plain_bytes - BLOCK)), BLOCK),)
        )
        for number in sorted(numbers)
        for record in [draw(shard_records())]
    ]
    size = draw(st.integers((max(numbers, default=-1) + 1) * BLOCK, 2**62))
    return Manifest(draw(names), size, BLOCK, VolumeId(draw(ids)), tuple(shards))


@given(manifests())
def test_round_trip(manifest: Manifest) -> None:
    assert Manifest.from_json_untrusted(manifest.to_json()) == manifest


def example(name: bytes = b"notes.txt") -> Manifest:
    piece = PieceRecord(0, 0, PieceId(b"\3" * 32), NodeId(b"\4" * 20))
    record = ShardRecord(ShardId(b"\1" * 32), Salt(b"\2" * 16), 100, 160, Redundancy(1, 3), (piece,))
    return Manifest(
        name, 70000, BLOCK, VolumeId(b"\5" * 32), (ManifestShard(record, (ManifestBlock(BlockNumber(1), 10, 90),)),)
    )


def test_the_json_is_what_people_expect() -> None:
    document = json.loads(example().to_json())
    assert document["fileName"] == "notes.txt"
    assert "fileNameBytes" not in document
    assert (document["fileSize"], document["shardSize"]) == (70000, BLOCK)
    (shard,) = document["shards"]
    assert shard["id"] == "01" * 32
    assert shard["pieces"] == [{"id": "03" * 32, "host": "04" * 20, "position": 0, "generation": 0}]
    assert shard["blocks"] == [{"number": 1, "offset": 10, "length": 90}]
    assert example().to_json().endswith(b"}\n")


@pytest.mark.parametrize("name", [b"\xff\xfe", b"caf\xe9", "\ufffd".encode(), b"a\nb", b"%2F", b"\xed\xb0\x80"])
def test_any_name_survives(name: bytes) -> None:
    again = Manifest.from_json_untrusted(example(name).to_json())
    assert again.file_name == name


def test_the_first_block_and_the_whole_payload() -> None:
    document = json.loads(example().to_json())
    document["shards"][0]["blocks"] = [{"number": 0, "offset": 0, "length": 100}]
    (shard,) = Manifest.from_json_untrusted(json.dumps(document).encode()).shards
    assert shard.blocks == (ManifestBlock(BlockNumber(0), 0, 100),)


def test_fields_of_later_versions_are_ignored() -> None:
    document = json.loads(example().to_json())
    document["comment"] = {"anything": [1]}
    assert Manifest.from_json_untrusted(json.dumps(document).encode()) == example()


def changed(*path: str | int, value: object) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        if value is None:
            del document[path[-1]]
        else:
            document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("format", value="zip"),
        changed("version", value=2),
        changed("fileName", value="../../etc/passwd"),
        changed("fileName", value=".."),
        changed("fileName", value=""),
        changed("fileName", value="a\0b"),
        changed("fileName", value="x" * 256),
        changed("fileName", value="\ud800"),
        changed("fileNameBytes", value="2f"),
        changed("fileNameBytes", value="zz"),
        changed("fileSize", value=-1),
        changed("fileSize", value=2**63),
        changed("fileSize", value=BLOCK + 89),
        changed("shardSize", value=BLOCK + 1),
        changed("shardSize", value=0),
        changed("shardSize", value=8 << 20),
        changed("volume", value="05" * 31),
        changed("volume", value=None),
        changed("shards", 0, "id", value="zz" * 32),
        changed("shards", 0, "id", value="01 " * 21 + "0"),
        changed("shards", 0, "salt", value=""),
        changed("shards", 0, "plainBytes", value=99),
        changed("shards", 0, "plainBytes", value=5 << 20),
        changed("shards", 0, "sealedBytes", value=0),
        changed("shards", 0, "sealedBytes", value=1 << 40),
        changed("shards", 0, "needed", value=0),
        changed("shards", 0, "needed", value=4),
        changed("shards", 0, "pieces", 0, "position", value=3),
        changed("shards", 0, "pieces", 0, "position", value=-1),
        changed("shards", 0, "pieces", 0, "generation", value=2**32),
        changed("shards", 0, "pieces", 0, "host", value="04"),
        changed("shards", 0, "blocks", 0, "number", value=-1),
        changed("shards", 0, "blocks", 0, "number", value=2),
        changed("shards", 0, "blocks", 0, "offset", value=-1),
        changed("shards", 0, "blocks", 0, "offset", value=11),
        changed("shards", 0, "blocks", 0, "length", value=0),
        changed("shards", 0, "blocks", 0, "length", value=BLOCK + 1),
        changed("shards", 0, "blocks", value=[{"number": 1, "offset": 0, "length": 1}] * 2),
        changed("shards", value="none"),
    ],
)
def test_foreign_manifests_are_checked(change: Callable[[Any], None]) -> None:
    document = json.loads(example().to_json())
    change(document)
    with pytest.raises(BadMessage, match="not a LayrFS manifest"):
        Manifest.from_json_untrusted(json.dumps(document).encode())


def test_two_pieces_with_one_position() -> None:
    document = json.loads(example().to_json())
    document["shards"][0]["pieces"] *= 2
    with pytest.raises(BadMessage, match="pieces"):
        Manifest.from_json_untrusted(json.dumps(document).encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.one_of(st.binary(), json_values.map(lambda value: json.dumps(value).encode("utf-8", "replace"))))
def test_hostile_bytes(data: bytes) -> None:
    with pytest.raises(BadMessage):
        Manifest.from_json_untrusted(data)


@given(st.data())
def test_damaged_bytes(data: st.DataObject) -> None:
    damaged = bytearray(example().to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadMessage):
        Manifest.from_json_untrusted(bytes(damaged))


def test_deep_nesting() -> None:
    with pytest.raises(BadMessage):
        Manifest.from_json_untrusted(b'{"x":' + b"[" * 100_000)


def test_the_size_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_BYTES", 10)
    with pytest.raises(BadMessage, match="too large"):
        Manifest.from_json_untrusted(example().to_json())
