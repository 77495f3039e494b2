"""A manifest: everything but the key that is needed to bring one file back, as JSON for export and import.

Bytes are lower-case hex. A file name is any bytes: `fileName` shows it as text, and when the bytes are not UTF-8
`fileNameBytes` holds them in hex and is what counts. A block that is in no shard is zeros, and so is what a block
lacks at its end.
"""

from __future__ import annotations

import msgspec

from layrfs.errors import BadMessage
from layrfs.ids import NODE_ID_BYTES, PIECE_ID_BYTES, SALT_BYTES, BlockNumber, NodeId, PieceId, Salt, ShardId, VolumeId
from layrfs.model.redundancy import Redundancy
from layrfs.model.shard_format import MAX_SEALED_BYTES
from layrfs.model.sharding import BLOCK_STEP_BYTES, MAX_BLOCK_BYTES, MIN_BLOCK_BYTES
from layrfs.model.shards import PieceRecord, ShardRecord

FORMAT = "layrfs-manifest"
VERSION = 1
LIMIT_BYTES = 256 * 1024 * 1024
"""Of the JSON: about 1.5 TB of file."""

_NAME_LIMIT_BYTES = 255
_ID_BYTES = 32
_MAX_OFFSET = 2**63 - 1


class ManifestBlock(msgspec.Struct, frozen=True):
    """Block `number` of the file is `length` bytes at `offset` of the shard's payload."""

    number: BlockNumber
    offset: int
    length: int


class ManifestShard(msgspec.Struct, frozen=True):
    """A shard, and which of the file's blocks are in it."""

    record: ShardRecord
    blocks: tuple[ManifestBlock, ...]


class Manifest(msgspec.Struct, frozen=True):
    """One file. `shard_size` is its block size; shards are in the order of their first block."""

    file_name: bytes
    file_size: int
    shard_size: int
    volume: VolumeId
    shards: tuple[ManifestShard, ...]

    def to_json(self) -> bytes:
        """Indented UTF-8 JSON that ends in a newline."""
        text = self.file_name.decode("utf-8", "replace")
        document = _Document(
            format=FORMAT,
            version=VERSION,
            file_name=text,
            file_name_bytes=msgspec.UNSET if text.encode() == self.file_name else self.file_name.hex(),
            file_size=self.file_size,
            shard_size=self.shard_size,
            volume=self.volume.hex(),
            shards=[_shard_to_json(shard) for shard in self.shards],
        )
        return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"

    @classmethod
    def from_json_untrusted(cls, data: bytes) -> Manifest:
        """Checked so far that a download can follow it blindly; raises BadMessage."""
        if len(data) > LIMIT_BYTES:
            raise BadMessage("the manifest is too large")
        try:
            document = msgspec.json.decode(data, type=_Document)
            manifest = _from_document(document)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadMessage(f"this is not a LayrFS manifest: {error}") from None
        return manifest


class _Document(msgspec.Struct, rename="camel"):
    format: str
    version: int
    file_name: str
    file_size: int
    shard_size: int
    volume: str
    shards: list[_Shard]
    file_name_bytes: str | msgspec.UnsetType = msgspec.UNSET


class _Shard(msgspec.Struct, rename="camel"):
    id: str
    salt: str
    sealed_bytes: int
    plain_bytes: int
    needed: int
    total: int
    pieces: list[_Piece]
    blocks: list[ManifestBlock]


class _Piece(msgspec.Struct, rename="camel"):
    id: str
    host: str
    position: int
    generation: int


def _shard_to_json(shard: ManifestShard) -> _Shard:
    record = shard.record
    return _Shard(
        id=record.id.hex(),
        salt=record.salt.hex(),
        sealed_bytes=record.sealed_bytes,
        plain_bytes=record.plain_bytes,
        needed=record.redundancy.needed,
        total=record.redundancy.total,
        pieces=[_Piece(p.id.hex(), p.host.hex(), p.position, p.generation) for p in record.pieces],
        blocks=list(shard.blocks),
    )


def _from_document(document: _Document) -> Manifest:
    """Raises ValueError with what is wrong."""
    _require(document.format == FORMAT, "its format is another")
    _require(document.version == VERSION, "its version is not one this LayrFS knows")
    _require(0 <= document.file_size <= _MAX_OFFSET, "the file size is impossible")
    _require(
        MIN_BLOCK_BYTES <= document.shard_size <= MAX_BLOCK_BYTES and document.shard_size % BLOCK_STEP_BYTES == 0,
        "the shard size is impossible",
    )
    manifest = Manifest(
        file_name=_name(document),
        file_size=document.file_size,
        shard_size=document.shard_size,
        volume=VolumeId(_hex(document.volume, _ID_BYTES)),
        shards=tuple(_shard_from_json(shard) for shard in document.shards),
    )
    _check_blocks(manifest)
    return manifest


def _name(document: _Document) -> bytes:
    raw = document.file_name_bytes
    name = document.file_name.encode() if isinstance(raw, msgspec.UnsetType) else bytes.fromhex(raw)
    _require(
        0 < len(name) <= _NAME_LIMIT_BYTES and name not in {b".", b".."} and not set(name) & set(b"/\0"),
        "the file name is none",
    )
    return name


def _shard_from_json(shard: _Shard) -> ManifestShard:
    _require(0 < shard.plain_bytes <= MAX_BLOCK_BYTES, "a shard's size is impossible")
    _require(0 < shard.sealed_bytes <= MAX_SEALED_BYTES, "a shard's size is impossible")
    record = ShardRecord(
        id=ShardId(_hex(shard.id, _ID_BYTES)),
        salt=Salt(_hex(shard.salt, SALT_BYTES)),
        plain_bytes=shard.plain_bytes,
        sealed_bytes=shard.sealed_bytes,
        redundancy=Redundancy(shard.needed, shard.total),
        pieces=tuple(_piece_from_json(piece) for piece in shard.pieces),
    )
    _require(
        all(piece.position < shard.total for piece in record.pieces)
        and len({piece.position for piece in record.pieces}) == len(record.pieces),
        "a shard's pieces are not those of its code",
    )
    return ManifestShard(record, tuple(shard.blocks))


def _piece_from_json(piece: _Piece) -> PieceRecord:
    _require(0 <= piece.position < 2**16 and 0 <= piece.generation < 2**32, "a piece's number is impossible")
    return PieceRecord(
        position=piece.position,
        generation=piece.generation,
        id=PieceId(_hex(piece.id, PIECE_ID_BYTES)),
        host=NodeId(_hex(piece.host, NODE_ID_BYTES)),
    )


def _check_blocks(manifest: Manifest) -> None:
    """Every block lies in its shard and in the file, and none is there twice."""
    seen: set[int] = set()
    for shard in manifest.shards:
        for block in shard.blocks:
            in_shard = (
                block.offset >= 0 and block.length > 0 and block.offset + block.length <= shard.record.plain_bytes
            )
            end = block.number * manifest.shard_size + block.length
            in_file = block.number >= 0 and block.length <= manifest.shard_size and end <= manifest.file_size
            _require(in_shard and in_file and block.number not in seen, "a block is not where it could be")
            seen.add(block.number)


def _hex(text: str, length: int) -> bytes:
    value = bytes.fromhex(text) if len(text) == 2 * length else b""
    _require(len(value) == length, "an id is not hex of the right length")
    return value


def _require(condition: bool, complaint: str) -> None:  # noqa: FBT001 - the condition asserted, not a switch
    if not condition:
        raise ValueError(complaint)
