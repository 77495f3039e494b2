"""Frozen bytes of every format. A change that turns one of these red has changed a format: give it a new version.

`reference.py` reads the same bytes without any of our code.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import struct
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from layrfs.crypto import challenges, identity, keybox, keys, labels, merkle
from layrfs.crypto.aead import open_sealed, seal
from layrfs.crypto.digests import BlockDigester, labelled, shard_id
from layrfs.crypto.identity import NodeIdentity
from layrfs.crypto.mask import apply_mask
from layrfs.errors import NewerFormat, WrongPassphrase
from layrfs.ids import NodeId, PieceId, Salt
from layrfs.model import shard_format
from layrfs.model.manifest import Manifest
from layrfs.model.notes import PieceNote, Purpose, opened_untrusted
from layrfs.model.records import NodeRecord, verified_untrusted
from layrfs.model.redundancy import Redundancy
from layrfs.pipeline import coding
from layrfs.pipeline.transfers import Slot
from layrfs.wire import frames
from tests.vectors import reference

HERE = Path(__file__).parent


def load(name: str) -> Any:
    return json.loads((HERE / name).read_text("utf-8"))


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def counters(length: int) -> bytes:
    return b"".join(struct.pack("<I", number) for number in range(-(-length // 4)))[:length]


@pytest.mark.parametrize("vector", load("keys.json"), ids=lambda vector: vector["phrase"].split()[0])
def test_phrase_to_keys(vector: dict[str, Any]) -> None:
    volume = keys.VolumeKeys.from_phrase(vector["phrase"])
    assert keys.phrase_to_entropy(vector["phrase"]).hex() == vector["entropy"]
    assert keys.entropy_to_phrase(unhex(vector["entropy"])) == vector["phrase"]
    assert keys.phrase_to_seed(vector["phrase"]).hex() == vector["seed"]
    assert volume.content.hex() == vector["content"]
    assert volume.mask.hex() == vector["mask"]
    assert volume.root_private.hex() == vector["rootPrivate"]
    assert volume.volume_id.hex() == vector["volumeId"]
    assert volume.digest_key.hex() == vector["digestKey"]
    for case in vector["shardKey"]:
        assert volume.shard_key(Salt(unhex(case["salt"]))).hex() == case["key"]
    for case in vector["maskKey"]:
        key = keys.mask_key(volume.mask, Salt(unhex(case["salt"])), case["position"], case["generation"])
        assert key.hex() == case["key"]
    for case in vector["tenantPrivate"]:
        assert keys.tenant_private(volume.mask, NodeId(unhex(case["nodeId"]))).hex() == case["key"]


@pytest.mark.parametrize("vector", load("keys.json"), ids=lambda vector: vector["phrase"].split()[0])
def test_phrase_to_keys_without_our_code(vector: dict[str, Any]) -> None:
    found = reference.Keys.of(vector["phrase"])
    assert (found.content.hex(), found.mask.hex()) == (vector["content"], vector["mask"])
    assert reference.public_key(found.root).hex() == vector["volumeId"]
    assert reference.hkdf(found.content, b"LayrFS v1 block digest").hex() == vector["digestKey"]
    for case in vector["shardKey"]:
        key = reference.hkdf(found.content, b"LayrFS v1 shard sealing", unhex(case["salt"]))
        assert key.hex() == case["key"]
    for case in vector["maskKey"]:
        assert found.piece_mask(unhex(case["salt"]), case["position"], case["generation"]).hex() == case["key"]
    for case in vector["tenantPrivate"]:
        key = reference.hkdf(found.mask, b"LayrFS v1 tenant key" + unhex(case["nodeId"]))
        assert key.hex() == case["key"]


def test_digests() -> None:
    vectors = load("digests.json")
    for case in vectors["labelled"]:
        assert labelled(case["label"], unhex(case["data"])).hex() == case["digest"]
    for case in vectors["blockDigest"]:
        assert BlockDigester(unhex(case["key"])).digest(unhex(case["data"])).hex() == case["digest"]
        assert blake3(unhex(case["data"]), key=unhex(case["key"])).hexdigest() == case["digest"]
    for case in vectors["shardId"]:
        assert shard_id(unhex(case["sealed"])).hex() == case["id"]


def test_piece_ids() -> None:
    for case in load("merkle.json")["pieceIds"]:
        data = counters(case["length"])
        assert merkle.piece_id(data).hex() == reference.piece_id(data).hex() == case["id"]


def test_merkle_proofs() -> None:
    vectors = load("merkle.json")
    ids = {case["length"]: case["id"] for case in vectors["pieceIds"]}
    for case in vectors["proofs"]:
        length, first, count = case["length"], case["first"], case["count"]
        data = counters(length)
        proof = [unhex(node) for node in case["proof"]]
        assert merkle.prove(merkle.leaf_hashes(data), first, count) == proof
        piece = PieceId(unhex(ids[length])) if length in ids else merkle.piece_id(data)
        leaves = data[first * merkle.LEAF_BYTES : (first + count) * merkle.LEAF_BYTES]
        assert merkle.verify(piece, length, first, leaves, proof)


def test_challenges() -> None:
    vectors = load("challenges.json")
    secret = unhex(vectors["secret"])
    for case in vectors["chosen"]:
        asked = (secret, PieceId(unhex(case["piece"])), case["leaves"], case["count"])
        assert list(challenges.chosen_leaves(*asked)) == reference.chosen_leaves(*asked) == case["chosen"]
    for case in vectors["answers"]:
        data, piece = counters(case["length"]), PieceId(unhex(case["piece"]))
        leaf_count = max(1, -(-len(data) // 16384))
        selected = reference.chosen_leaves(secret, piece, leaf_count, max(4, -(-leaf_count // 16)))
        for kind, leaves in (("whole", None), ("leaves", selected)):
            ours = challenges.answer_digest(secret, piece, data, kind)
            assert ours.hex() == reference.answer(secret, data, leaves).hex() == case[kind]


def shards() -> Any:
    return load("shards.json")["shards"]


@pytest.mark.parametrize("vector", shards(), ids=lambda vector: vector["name"])
def test_shards(vector: dict[str, Any]) -> None:
    volume = keys.VolumeKeys.from_phrase(load("shards.json")["phrase"])
    sealed, salt = unhex(vector["sealed"]), Salt(unhex(vector["salt"]))
    assert shard_id(sealed).hex() == vector["id"]
    header = shard_format.decode_header_untrusted(sealed)
    assert (header.codec, header.salt) == (vector["codec"], salt)
    head = shard_format.encode_header(header)
    aad = shard_format.associated_data(head, volume.volume_id)
    packed = open_sealed(volume.shard_key(salt), aad, sealed[shard_format.HEADER_BYTES :])
    assert head + seal(volume.shard_key(salt), aad, packed) == sealed
    plaintext = packed if header.codec == shard_format.CODEC_RAW else reference.expand(packed)
    assert blake3(plaintext).hexdigest() == vector["plaintextBlake3"]
    assert shard_format.payload_offset_untrusted(plaintext) == vector["payloadOffset"]
    rows = shard_format.decode_table_untrusted(plaintext)
    assert [msgspec.to_builtins(row) for row in rows] == vector["parts"]
    assert plaintext.startswith(shard_format.encode_table(rows))
    for case in vector["pieces"]:
        piece = apply_mask(keys.mask_key(volume.mask, salt, case["position"], case["generation"]), sealed)
        assert (piece.hex(), merkle.piece_id(piece).hex()) == (case["data"], case["id"])


@pytest.mark.parametrize("vector", shards(), ids=lambda vector: vector["name"])
def test_from_any_piece_to_plaintext_without_our_code(vector: dict[str, Any]) -> None:
    """What somebody with the 24 words, a manifest and format.md does."""
    found = reference.Keys.of(load("shards.json")["phrase"])
    for case in vector["pieces"]:
        piece = unhex(case["data"])
        assert reference.piece_id(piece).hex() == case["id"]
        sealed = reference.unmask(found, piece, unhex(vector["salt"]), case["position"], case["generation"])
        assert reference.context("LayrFS v1 shard id", sealed).hex() == vector["id"]
        plaintext = reference.open_shard(found, sealed)
        assert blake3(plaintext).hexdigest() == vector["plaintextBlake3"]
        rows = [
            {"inode": inode, "block": block, "length": len(data), "block_bytes": size}
            for inode, block, size, data in reference.parts(plaintext)
        ]
        assert rows == vector["parts"]


@pytest.mark.parametrize("vector", load("codes.json")["codes"], ids=lambda vector: vector["redundancy"])
def test_codes(vector: dict[str, Any]) -> None:
    shard, redundancy = shards()[vector["shard"]], Redundancy.parse(vector["redundancy"])
    phrase, salt = load("shards.json")["phrase"], Salt(unhex(shard["salt"]))
    mask, slots = keys.VolumeKeys.from_phrase(phrase).mask, [Slot(*slot) for slot in vector["slots"]]
    made = coding.make_pieces(mask, salt, redundancy, slots, unhex(shard["sealed"]))
    assert [(piece.data.hex(), piece.id.hex()) for piece in made] == [
        (piece["data"], piece["id"]) for piece in vector["pieces"]
    ]


@pytest.mark.parametrize("vector", load("codes.json")["codes"], ids=lambda vector: vector["redundancy"])
def test_from_any_pieces_of_a_code_to_the_shard_without_our_code(vector: dict[str, Any]) -> None:
    shard = shards()[vector["shard"]]
    needed = int(vector["redundancy"][3:].partition("/")[0])
    found = reference.Keys.of(load("shards.json")["phrase"])
    fragments = {}
    for (position, generation), piece in zip(vector["slots"], vector["pieces"], strict=True):
        data = unhex(piece["data"])
        assert reference.piece_id(data).hex() == piece["id"]
        fragments[position] = reference.unmask(found, data, unhex(shard["salt"]), position, generation)
    for chosen in combinations(fragments, needed):
        assert reference.uncode(needed, {at: fragments[at] for at in chosen}).hex() == shard["sealed"]


@pytest.mark.parametrize("case", load("notes.json")["notes"], ids=lambda case: case["piece"][:8])
def test_notes(case: dict[str, Any]) -> None:
    phrase, piece, note = load("notes.json")["phrase"], PieceId(unhex(case["piece"])), unhex(case["note"])
    mask = keys.VolumeKeys.from_phrase(phrase).mask
    places = (case["number"], case["index"], case["count"], unhex(case["blob"]), unhex(case["previous"]))
    slot = (case["position"], case["generation"])
    redundancy = Redundancy(case["needed"], case["total"])
    meant = PieceNote(Salt(unhex(case["salt"])), *slot, redundancy, Purpose(case["role"], *places))
    assert opened_untrusted(mask, piece, note) == meant
    assert meant.sealed(mask, piece) == note
    roles = {"content": 0, "checkpoint": 1, "changes": 2}
    numbers = (case["generation"], case["position"], case["needed"], case["total"], roles[case["role"]])
    found = reference.open_note(reference.Keys.of(phrase), piece, note)
    assert found == (unhex(case["salt"]), *numbers, *places)


def test_identity() -> None:
    vector = load("identity.json")
    node = NodeIdentity.from_private(unhex(vector["private"]))
    assert node.public_key.hex() == vector["publicKey"]
    assert node.node_id.hex() == hashlib.sha256(node.public_key).hexdigest()[:40] == vector["nodeId"]
    for case in vector["signatures"]:
        signed = case["label"].encode() + b"\0" + unhex(case["message"])
        assert node.sign(signed).hex() == case["signature"]
        assert labels.signed_bytes(case["label"].encode(), unhex(case["message"])) == signed
    certificate, key = identity.certificate_pem(node)
    assert (certificate.decode(), key.decode()) == (vector["certificate"], vector["privateKeyPem"])
    assert identity.DUMMY_CA_PEM.decode() == vector["dummyAuthority"]
    der = ssl.PEM_cert_to_DER_cert(vector["certificate"])
    assert identity.public_key_of_certificate_untrusted(der) == node.public_key


def test_key_files() -> None:
    vector = load("keyfile.json")
    secret = unhex(vector["secret"])
    assert keybox.unlock(unhex(vector["plain"]), None) == secret
    assert keybox.lock(secret, None).hex() == vector["plain"]
    for case in vector["wrapped"]:
        blob = unhex(case["blob"])
        assert keybox.unlock(blob, keybox.normalized_passphrase(case["passphrase"])) == secret
    with pytest.raises(WrongPassphrase):
        keybox.unlock(unhex(vector["wrapped"][0]["blob"]), b"wrong horse")
    with pytest.raises(NewerFormat):
        keybox.unlock(unhex(vector["newer"]), None)


def test_frames() -> None:
    for case in load("frames.json"):
        prefix = frames.pack_prefix(case["headerBytes"], case["bodyBytes"])
        assert prefix.hex() == case["prefix"]
        assert frames.parse_prefix_untrusted(prefix) == (case["headerBytes"], case["bodyBytes"])


def test_node_records() -> None:
    for case in load("node_records.json"):
        record = NodeRecord.sign(
            NodeIdentity.from_private(unhex(case["private"])),
            host=case["host"],
            udp_port=case["udpPort"],
            tcp_port=case["tcpPort"],
            free_bytes=case["freeBytes"],
            price=case["price"],
            leaving=case["leaving"],
            version=case["version"],
            expires=case["expires"],
        )
        assert record.to_bytes().hex() == case["record"]
        assert record.signature.hex() == case["signature"]
        assert verified_untrusted(unhex(case["record"]), case["expires"] - 1) == record
        assert record.node_id.hex() == case["nodeId"]


@pytest.mark.parametrize(
    ("name", "file_name"),
    [("manifest-v1.json", "Gr\u00fc\u00dfe.txt".encode()), ("manifest-v1-bytes-name.json", b"caf\xe9")],
)
def test_manifests(name: str, file_name: bytes) -> None:
    data = (HERE / name).read_bytes()
    manifest = Manifest.from_json_untrusted(data)
    assert manifest.file_name == file_name
    assert manifest.to_json() == data
    (shard,) = manifest.shards
    assert shard.record.id.hex() == shards()[1]["id"]
    assert [piece.id.hex() for piece in shard.record.pieces] == [piece["id"] for piece in shards()[1]["pieces"][:3]]
