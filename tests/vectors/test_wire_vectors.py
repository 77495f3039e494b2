"""Frozen bytes of what nodes and hosts say to each other; each also taken apart by hand."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from layrfs.crypto.identity import NodeIdentity
from layrfs.wire import contracts, datagrams, delegation, messages
from layrfs.wire.codec import encode

HERE = Path(__file__).parent


def load(name: str) -> Any:
    return json.loads((HERE / name).read_text("utf-8"))


@pytest.mark.parametrize("case", load("messages.json")["messages"], ids=lambda case: case["kind"])
def test_messages(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    kind = getattr(messages, case["kind"])
    if kind is messages.Hello:
        message: msgspec.Struct = messages.hello_untrusted(data)
    elif kind in messages.Response.__args__:
        message = messages.response_untrusted(data)
    else:
        message = messages.request_untrusted(data)
    assert type(message) is kind
    assert encode(message) == data
    words = re.findall("[A-Z][a-z]+", case["kind"])
    assert msgspec.msgpack.decode(data)["type"] == " ".join(words).lower()


def test_a_delete_is_signed_for_one_host_connection_and_time() -> None:
    vector = load("messages.json")
    (case,) = [case for case in vector["messages"] if case["kind"] == "Delete"]
    found = msgspec.msgpack.decode(bytes.fromhex(case["bytes"]))
    node_id = hashlib.sha256(found["tenant"]).digest()[:20]
    statement = bytes.fromhex(vector["network"]) + node_id + bytes.fromhex(vector["challenge"])
    statement += struct.pack("<II", vector["deleteNumber"], len(found["pieces"])) + b"".join(found["pieces"])
    signed = b"LayrFS v1 delete signature\0" + statement
    assert signed.hex() == vector["deleteStatement"]
    Ed25519PublicKey.from_public_bytes(found["tenant"]).verify(found["signature"], signed)
    ours = messages.delete_statement(
        bytes.fromhex(vector["network"]),
        NodeIdentity.from_private(bytes.fromhex(vector["private"])).node_id,
        bytes.fromhex(vector["challenge"]),
        vector["deleteNumber"],
        found["pieces"],
    )
    assert ours == signed


def test_a_renewal_is_signed_alike() -> None:
    vector = load("messages.json")
    (case,) = [case for case in vector["messages"] if case["kind"] == "Renew"]
    found = msgspec.msgpack.decode(bytes.fromhex(case["bytes"]))
    node_id = hashlib.sha256(found["tenant"]).digest()[:20]
    bound = bytes.fromhex(vector["network"]) + node_id + bytes.fromhex(vector["challenge"])
    bound += struct.pack("<II", vector["deleteNumber"] + 1, len(found["pieces"])) + b"".join(found["pieces"])
    signed = b"LayrFS v1 renew signature\0" + bound
    assert signed.hex() == vector["renewStatement"]
    Ed25519PublicKey.from_public_bytes(found["tenant"]).verify(found["signature"], signed)


def test_an_inventory_is_signed_for_one_host_connection_and_time() -> None:
    vector = load("messages.json")
    (case,) = [case for case in vector["messages"] if case["kind"] == "Inventory"]
    found = msgspec.msgpack.decode(bytes.fromhex(case["bytes"]))
    node_id = hashlib.sha256(found["tenant"]).digest()[:20]
    statement = bytes.fromhex(vector["network"]) + node_id + bytes.fromhex(vector["challenge"])
    statement += struct.pack("<I", vector["deleteNumber"]) + found["after"]
    signed = b"LayrFS v1 inventory signature\0" + statement
    assert signed.hex() == vector["inventoryStatement"]
    Ed25519PublicKey.from_public_bytes(found["tenant"]).verify(found["signature"], signed)


@pytest.mark.parametrize("case", load("datagrams.json")["datagrams"], ids=lambda case: case["kind"])
def test_datagrams(case: dict[str, Any]) -> None:
    vector = load("datagrams.json")
    data = bytes.fromhex(case["datagram"])
    found = datagrams.open_untrusted(data)
    assert type(found.message).__name__ == case["kind"]
    assert found.authentic()
    sealed = datagrams.seal(
        NodeIdentity.from_private(bytes.fromhex(vector["private"])),
        bytes.fromhex(case["networkId"]),
        found.message,
        nonce=bytes.fromhex(vector["nonce"]),
        time_ms=vector["timeMs"],
        serving=vector["serving"],
    )
    assert sealed == data


@pytest.mark.parametrize("case", load("datagrams.json")["datagrams"], ids=lambda case: case["kind"])
def test_datagrams_without_our_code(case: dict[str, Any]) -> None:
    vector = load("datagrams.json")
    data = bytes.fromhex(case["datagram"])
    magic, version, flags, network, key, time_ms, nonce = struct.unpack_from("<4sBB32s32sQ8s", data)
    assert (magic, version, network.hex()) == (b"LYRD", 1, case["networkId"])
    assert flags == 2 | (case["kind"] in {"Pong", "Nodes", "Filed"})
    assert (time_ms, nonce.hex()) == (vector["timeMs"], vector["nonce"])
    kinds = ["Hello", "Ping", "Pong", "FindNode", "Nodes", "FileNode", "Filed"]
    assert kinds[msgspec.msgpack.decode(data[86:-64])[0]] == case["kind"]
    Ed25519PublicKey.from_public_bytes(key).verify(data[-64:], b"LayrFS v1 datagram signature\0" + data[:-64])


@pytest.mark.parametrize("case", load("delegation.json")["messages"], ids=lambda case: case["kind"])
def test_messages_about_delegations(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    kind = getattr(delegation, case["kind"])
    is_request = kind in messages.Request.__args__
    message = messages.request_untrusted(data) if is_request else messages.response_untrusted(data)
    assert type(message) is kind
    assert encode(message) == data


def test_requests_about_delegations_are_signed_by_the_volume_for_one_connection_and_their_body() -> None:
    vector = load("delegation.json")
    body, digest = bytes.fromhex(vector["bucketBody"]), bytes.fromhex(vector["bucketDigest"])
    digests = bytearray(65536)
    digests[16 * vector["bucket"] : 16 * vector["bucket"] + 16] = digest
    requests = [case for case in vector["messages"] if case["kind"] in {"Delegate", "Entrust", "GetPatches", "Revoke"}]
    for number, case in enumerate(requests):
        found = msgspec.msgpack.decode(bytes.fromhex(case["bytes"]))
        unsigned = msgspec.msgpack.encode(found | {"signature": bytes(64)})
        node_id = hashlib.sha256(bytes(found["volume"])).digest()[:20]  # one key is all of them here
        statement = bytes.fromhex(vector["network"]) + node_id + bytes.fromhex(vector["challenge"])
        statement += struct.pack("<I", number) + unsigned
        statement += {"Delegate": bytes(digests), "Entrust": body}.get(case["kind"], b"")
        Ed25519PublicKey.from_public_bytes(found["volume"]).verify(
            found["signature"], b"LayrFS v1 delegation signature\0" + statement
        )


def test_a_bucket_without_our_code() -> None:
    vector = load("delegation.json")
    body = bytes.fromhex(vector["bucketBody"])
    assert blake3(body, derive_key_context="LayrFS v1 entrusted bucket").digest()[:16].hex() == vector["bucketDigest"]
    assert delegation.bucket_digest(body).hex() == vector["bucketDigest"]
    shards = msgspec.msgpack.decode(body)
    assert [shard[0][0] << 4 | shard[0][1] >> 4 for shard in shards] == [vector["bucket"]] * 2
    first, second = shards
    assert (len(first[1]), first[2:6], first[7]) == (16, [4194400, 1, 3, 2], [0, 0, 0, 0, bytes(6), bytes(6)])
    assert [piece[:2] for piece in first[6]] == [[0, 0], [2, 2]]
    assert second[2:] == [70000, 4, 8, 0, [], [2, 7, 0, 1, bytes(6), b"\x09" * 6]]
    assert delegation.shards_body(delegation.shards_untrusted(body, vector["bucket"])) == body


def test_patch_records_are_signed_by_their_delegate_for_one_network() -> None:
    vector = load("delegation.json")
    (case,) = [case for case in vector["messages"] if case["kind"] == "Patches"]
    found = msgspec.msgpack.decode(bytes.fromhex(case["bytes"]))
    assert len(found["records"]) == 2
    for record in found["records"]:
        unsigned = msgspec.msgpack.encode([*record[:-1], bytes(64)])
        signed = b"LayrFS v1 patch record signature\0" + bytes.fromhex(vector["network"]) + unsigned
        Ed25519PublicKey.from_public_bytes(found["public_key"]).verify(record[-1], signed)


@pytest.mark.parametrize("case", load("contract_messages.json")["messages"], ids=lambda case: case["kind"])
def test_messages_about_contracts(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    kind = getattr(contracts, case["kind"])
    is_request = kind in messages.Request.__args__
    message = messages.request_untrusted(data) if is_request else messages.response_untrusted(data)
    assert type(message) is kind
    assert encode(message) == data
    assert msgspec.msgpack.decode(data)["type"] == case["kind"].lower()


def test_requests_about_contracts_are_signed_by_the_tenant_for_one_connection_and_their_body() -> None:
    vector = load("contract_messages.json")
    found = [msgspec.msgpack.decode(bytes.fromhex(case["bytes"])) for case in vector["messages"]]
    signed = [message for message in found if "tenant" in message]
    assert len(signed) == 6
    for number, message in enumerate(signed):
        unsigned = msgspec.msgpack.encode(message | {"signature": bytes(64)})
        node_id = hashlib.sha256(message["tenant"]).digest()[:20]  # one key is host and tenant here
        statement = bytes.fromhex(vector["network"]) + node_id + bytes.fromhex(vector["challenge"])
        statement += struct.pack("<I", number) + unsigned
        statement += bytes.fromhex(vector["coverBody"]) if message["type"] == "cover" else b""
        Ed25519PublicKey.from_public_bytes(message["tenant"]).verify(
            message["signature"], b"LayrFS v1 contract signature\0" + statement
        )
