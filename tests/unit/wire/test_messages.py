"""Messages between owners and hosts: what they hold, and what becomes of anything else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import BadMessage
from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.wire import delegation, messages
from layrfs.wire.codec import encode
from layrfs.wire.frames import HEADER_LIMIT

PIECE = PieceId(bytes(32))
REPORT = messages.StatusReport(1, 2, 3, 4, 5, 6, verifying=True, requests={"a": 1}, dropped={}, started=1.5)
RECORD = delegation.PatchRecord(
    bytes(32), ShardId(bytes(32)), 2**16 - 1, 2**32 - 1, PIECE, NodeId(bytes(20)), bytes(32), bytes(64)
)
EXAMPLES: list[tuple[Callable[[bytes], object], msgspec.Struct]] = [
    (messages.hello_untrusted, messages.Hello(bytes(32))),
    (messages.request_untrusted, messages.Store(PIECE, bytes(32))),
    (messages.request_untrusted, messages.Retrieve(PIECE, 3, 4)),
    (messages.request_untrusted, messages.Prove(PIECE, bytes(32), 32)),
    (messages.request_untrusted, messages.Answer(PIECE, bytes(32), "whole")),
    (messages.request_untrusted, messages.Has((PIECE,) * 1024)),
    (messages.request_untrusted, messages.Delete((PIECE,) * 1024, bytes(32), bytes(64))),
    (messages.request_untrusted, messages.Renew((PIECE,) * 1024, bytes(32), bytes(64))),
    (messages.request_untrusted, messages.Store(PIECE, bytes(32), bytes(64))),
    (messages.request_untrusted, messages.Inventory(bytes(32), bytes(64), PIECE)),
    (messages.request_untrusted, messages.Status()),
    (messages.request_untrusted, messages.PutRoot()),
    (messages.request_untrusted, messages.GetRoot(bytes(32))),
    (messages.request_untrusted, delegation.Delegate(bytes(32), bytes(32), 2**63 - 1, 900, 259200, bytes(64))),
    (messages.request_untrusted, delegation.Entrust(bytes(32), 4095, bytes(64))),
    (messages.request_untrusted, delegation.GetPatches(bytes(32), b"\xff" * 32, bytes(64))),
    (messages.request_untrusted, delegation.Revoke(bytes(32), bytes(64))),
    (messages.response_untrusted, delegation.Delegated(tuple(range(4096)))),
    (messages.response_untrusted, delegation.Entrusted()),
    (messages.response_untrusted, delegation.Patches(bytes(32), (RECORD,) * 192, more=True)),
    (messages.response_untrusted, delegation.Revoked()),
    (messages.response_untrusted, messages.Welcome(bytes(32))),
    (messages.response_untrusted, messages.Stored()),
    (messages.response_untrusted, messages.Retrieved(2**62, 7, (bytes(32),) * 128)),
    (messages.response_untrusted, messages.Proven(2**63 - 1, ((bytes(32),) * 49,) * 32)),
    (messages.response_untrusted, messages.Proven(0, ((),))),
    (messages.response_untrusted, messages.Answered(bytes(32))),
    (messages.response_untrusted, messages.Held((True, False) * 512)),
    (messages.response_untrusted, messages.Deleted(3)),
    (messages.response_untrusted, messages.Renewed((True, False) * 512)),
    (messages.response_untrusted, messages.Listing(())),
    (messages.response_untrusted, messages.Listing((messages.Listed(PIECE, 2**63 - 1, bytes(64)),) * 512, PIECE)),
    (messages.response_untrusted, messages.RootKept()),
    (messages.response_untrusted, messages.RootFound()),
    (messages.response_untrusted, messages.Refused("full")),
    (messages.response_untrusted, messages.Refused("stale")),
    (messages.response_untrusted, messages.Refused("bad root")),
    (
        messages.response_untrusted,
        messages.StatusReport(1, 2, 3, 4, 5, 6, verifying=True, requests={"a": 1}, dropped={}, started=1.5),
    ),
]


@pytest.mark.parametrize(("read", "message"), EXAMPLES)
def test_there_and_back_within_a_frames_header(read: Callable[[bytes], object], message: msgspec.Struct) -> None:
    data = encode(message)
    assert len(data) <= HEADER_LIMIT
    assert read(data) == message


DELEGATE = {
    "volume": bytes(32),
    "mask": bytes(32),
    "until": 1,
    "present_seconds": 1,
    "patch_after_seconds": 1,
    "signature": bytes(64),
}
BAD_REQUESTS = [
    {"type": "delegate", **DELEGATE, "mask": bytes(31)},
    {"type": "delegate", **DELEGATE, "until": -1},
    {"type": "delegate", **DELEGATE, "patch_after_seconds": 2**32},
    {"type": "entrust", "volume": bytes(32), "bucket": 4096, "signature": bytes(64)},
    {"type": "entrust", "volume": bytes(32), "bucket": 0, "signature": bytes(63)},
    {"type": "get patches", "volume": bytes(32), "after": b"", "signature": bytes(64)},
    {"type": "revoke", "volume": bytes(31), "signature": bytes(64)},
    {"type": "store", "piece": bytes(31), "tenant": bytes(32)},
    {"type": "store", "piece": bytes(32)},
    {"type": "store", "piece": bytes(32), "tenant": bytes(32), "note": bytes(65)},
    {"type": "inventory", "tenant": bytes(32), "signature": bytes(64)},
    {"type": "inventory", "tenant": bytes(32), "signature": bytes(64), "after": bytes(31)},
    {"type": "store", "piece": "text", "tenant": bytes(32)},
    {"type": "retrieve", "piece": bytes(32), "offset": -1},
    {"type": "retrieve", "piece": bytes(32), "length": 2**63},
    {"type": "prove", "piece": bytes(32), "nonce": bytes(31)},
    {"type": "prove", "piece": bytes(32)},
    {"type": "prove", "piece": bytes(32), "nonce": bytes(32), "leaves": 0},
    {"type": "prove", "piece": bytes(32), "nonce": bytes(32), "leaves": 33},
    {"type": "prove", "piece": bytes(32), "nonce": bytes(32), "leaves": -1},
    {"type": "prove", "piece": bytes(32), "nonce": bytes(32), "leaves": [7]},
    {"type": "answer", "piece": bytes(32), "salt": bytes(33)},
    {"type": "answer", "piece": bytes(32), "salt": bytes(32), "kind": "half"},
    {"type": "answer", "piece": bytes(33), "salt": bytes(32)},
    {"type": "proven", "piece_bytes": 1, "proofs": [[]]},
    {"type": "has", "pieces": []},
    {"type": "has", "pieces": [bytes(32)] * 1025},
    {"type": "delete", "pieces": [bytes(32)], "tenant": bytes(32), "signature": bytes(63)},
    {"type": "get root", "volume": bytes(31)},
    {"type": "get root"},
    {"type": "root found"},
    {"type": "hello", "network": bytes(32)},
    {"type": "stored"},
    {"type": "nonsense"},
    {},
    [],
    None,
]


@pytest.mark.parametrize("fields", BAD_REQUESTS)
def test_a_request_of_another_shape_is_a_bad_message(fields: object) -> None:
    with pytest.raises(BadMessage):
        messages.request_untrusted(msgspec.msgpack.encode(fields))


BAD_RESPONSES = [
    {"type": "proven", "piece_bytes": -1, "proofs": [[]]},
    {"type": "proven", "piece_bytes": 2**63, "proofs": [[]]},
    {"type": "proven", "piece_bytes": 1, "proofs": []},
    {"type": "proven", "piece_bytes": 1, "proofs": [[]] * 33},
    {"type": "proven", "piece_bytes": 1, "proofs": [[bytes(32)] * 50]},
    {"type": "proven", "piece_bytes": 1, "proofs": [[bytes(31)]]},
    {"type": "proven", "piece_bytes": 1, "proofs": [bytes(32)]},
    {"type": "answered"},
    {"type": "answered", "digest": bytes(31)},
    {"type": "answered", "digest": "x" * 32},
]


@pytest.mark.parametrize("fields", BAD_RESPONSES)
def test_a_response_of_another_shape_is_a_bad_message(fields: object) -> None:
    with pytest.raises(BadMessage):
        messages.response_untrusted(msgspec.msgpack.encode(fields))


def test_a_reason_is_one_of_our_words() -> None:
    with pytest.raises(BadMessage):
        messages.response_untrusted(msgspec.msgpack.encode({"type": "refused", "reason": "\x1b[2J you lose"}))


@given(st.binary(max_size=300))
def test_garbage_is_a_bad_message_or_nothing(data: bytes) -> None:
    for read in (messages.hello_untrusted, messages.request_untrusted, messages.response_untrusted):
        with contextlib.suppress(BadMessage):
            read(data)


@given(st.sampled_from([encode(message) for _, message in EXAMPLES]), st.data())
def test_damaged_messages_raise_nothing_else(whole: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= data.draw(st.integers(1, 255))
    for read in (messages.hello_untrusted, messages.request_untrusted, messages.response_untrusted):
        with contextlib.suppress(BadMessage):
            read(bytes(damaged))


def test_what_a_delete_signs_differs_in_every_field() -> None:
    def statement(**changed: object) -> bytes:
        fields = {"network": bytes(32), "host": NodeId(bytes(20)), "challenge": bytes(32), "number": 0}
        fields["pieces"] = (PIECE,)
        return messages.delete_statement(**(fields | changed))  # type: ignore[arg-type]

    one = bytes([1])
    variants = [
        statement(),
        statement(network=one * 32),
        statement(host=one * 20),
        statement(challenge=one * 32),
        statement(number=1),
        statement(pieces=(PIECE, PIECE)),
        statement(pieces=(one * 32,)),
    ]
    assert len(set(variants)) == len(variants)
