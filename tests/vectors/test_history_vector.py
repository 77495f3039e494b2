"""Root record, history and blob: the vector read by our code, and by the specification's words alone."""

import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from layrfs.crypto.keys import VolumeKeys
from layrfs.crypto.root_body import open_root_body
from layrfs.ids import VolumeId
from layrfs.model.history import History
from layrfs.model.root_record import root_places, verified_untrusted
from layrfs.storage.changes import read_blob
from tests.vectors.reference import Keys, hkdf

VECTOR: dict[str, Any] = json.loads((Path(__file__).parent / "history.json").read_text())
RECORD = bytes.fromhex(VECTOR["record"])


def in_hex(value: Any) -> Any:
    """The same with bytes as the vector writes them."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: in_hex(inner) for key, inner in value.items()}
    return [in_hex(inner) for inner in value] if isinstance(value, list | tuple) else value


def test_our_code_reads_the_vector(tmp_path: Path) -> None:
    keys, record = VolumeKeys.from_phrase(VECTOR["phrase"]), verified_untrusted(RECORD)
    assert (record.volume.hex(), record.version, record.time_ms) == (
        VECTOR["volume"],
        VECTOR["version"],
        VECTOR["time_ms"],
    )
    history = History.from_bytes(open_root_body(keys.content, record.volume, record.version, record.body))
    assert in_hex(msgspec.to_builtins(history, builtin_types=(bytes,))) == VECTOR["history"]
    assert [place.hex() for place in root_places(VolumeId(record.volume))] == VECTOR["places"]
    path, plain = tmp_path / "blob", tmp_path / "plain"
    path.write_bytes(bytes.fromhex(VECTOR["blob"]["bytes"]))
    read_blob(str(path), VECTOR["blob"]["kind"], str(plain))
    assert plain.read_bytes().hex() == VECTOR["blob"]["plain"]


def test_the_specification_is_enough_to_read_the_vector() -> None:
    volume, version, time_ms, body, signature = msgspec.msgpack.decode(RECORD)
    keys = Keys.of(VECTOR["phrase"])
    signed = b"LYRT" + volume + struct.pack("<QQ", version, time_ms) + body
    Ed25519PublicKey.from_public_bytes(volume).verify(signature, b"LayrFS v1 root record signature\0" + signed)
    key = hkdf(keys.content, b"LayrFS v1 root record body", body[:16])
    plain = AESGCM(key).decrypt(bytes(12), body[16:], volume + struct.pack("<Q", version))
    assert in_hex(msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(plain))) == VECTOR["history"]
    places = blake3(volume, derive_key_context="LayrFS v1 root record place").digest(length=80)
    assert [places[at : at + 20].hex() for at in range(0, 80, 20)] == VECTOR["places"]
    blob = bytes.fromhex(VECTOR["blob"]["bytes"])
    assert (blob[:4], blob[4], blob[5], blob[-1]) == (b"LYRM", 1, 1, 1)
    assert zstandard.ZstdDecompressor().decompress(blob[22:-1]).hex() == VECTOR["blob"]["plain"]
