"""Messages about contracts: their bytes, their signatures, and what becomes of anything else."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import BadMessage
from layrfs.ids import NodeId, PieceId
from layrfs.wire import contracts, messages
from layrfs.wire.codec import encode
from layrfs.wire.frames import HEADER_LIMIT

KEY, SIGNATURE = bytes(range(32)), bytes(range(64))
MOST = 2**63 - 1
LOCK = contracts.SignedLock(MOST, KEY, SIGNATURE)
STANDS = contracts.Stands(
    bytes(1024),
    "notice",
    (contracts.StandingBatch(63, MOST, MOST, 2**32 - 1),) * contracts.BATCHES_LIMIT,
    (contracts.StandingInstalment(MOST, KEY, "disclosed"),) * 64,
    MOST,
    leaving=True,
)
REQUESTS: list[msgspec.Struct] = [
    contracts.Quote(),
    contracts.Propose(KEY, bytes(1024), SIGNATURE),
    contracts.Opened(KEY, KEY, SIGNATURE),
    contracts.Cover(KEY, KEY, 1023, 0, MOST, MOST, (LOCK,) * 64, SIGNATURE),
    contracts.Disclose(KEY, KEY, 63, KEY, SIGNATURE),
    contracts.Settle(KEY, KEY, MOST, MOST, MOST, SIGNATURE),
    contracts.Standing(KEY, 65535, SIGNATURE),
    contracts.Leave(),
]
RESPONSES: list[msgspec.Struct] = [
    contracts.Quoted(MOST, KEY, KEY, 2, 64, 1, 2**32 - 1, 0),
    contracts.Agreed(b""),
    contracts.Agreed(SIGNATURE),
    contracts.Ready(MOST),
    contracts.Covered(),
    contracts.Disclosed("disclosed"),
    contracts.Settled(SIGNATURE),
    contracts.Leaving(2**32 - 1, MOST),
    STANDS,
    messages.Refused("lock does not fit"),
]


def kind(message: msgspec.Struct) -> str:
    return type(message).__name__


@pytest.mark.parametrize("request_", REQUESTS, ids=kind)
def test_a_request_there_and_back_within_a_frames_header(request_: msgspec.Struct) -> None:
    assert len(encode(request_)) <= HEADER_LIMIT
    assert messages.request_untrusted(encode(request_)) == request_


@pytest.mark.parametrize("response", RESPONSES, ids=kind)
def test_a_response_there_and_back_within_a_frames_header(response: msgspec.Struct) -> None:
    assert len(encode(response)) <= HEADER_LIMIT
    assert messages.response_untrusted(encode(response)) == response


COVER = msgspec.msgpack.decode(encode(REQUESTS[3]))
DISCLOSE = msgspec.msgpack.decode(encode(REQUESTS[4]))
BAD_REQUESTS = [
    {"type": "propose", "tenant": KEY, "terms": bytes(1025), "signature": SIGNATURE},
    {"type": "propose", "tenant": KEY, "terms": b"", "signature": bytes(63)},
    {"type": "opened", "tenant": KEY, "contract": bytes(31), "signature": SIGNATURE},
    COVER | {"batch": 1024},
    COVER | {"first": 64},
    COVER | {"at": -1},
    COVER | {"bytes": 2**63},
    COVER | {"locks": []},
    COVER | {"locks": [[1, KEY, SIGNATURE]] * 65},
    COVER | {"locks": [[1, KEY]]},
    COVER | {"locks": [[-1, KEY, SIGNATURE]]},
    COVER | {"locks": [[1, KEY, SIGNATURE, 1]]},
    DISCLOSE | {"instalment": -1},
    DISCLOSE | {"salt": bytes(31)},
    {"type": "standing", "tenant": KEY, "number": 65536, "signature": SIGNATURE},
    {"type": "quoted"},
]


@pytest.mark.parametrize("fields", BAD_REQUESTS)
def test_a_request_of_another_shape_is_a_bad_message(fields: object) -> None:
    with pytest.raises(BadMessage):
        messages.request_untrusted(msgspec.msgpack.encode(fields))


@given(st.sampled_from([encode(message) for message in REQUESTS + RESPONSES[:-2]]), st.data())
def test_damaged_messages_raise_nothing_else(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    for read in (messages.request_untrusted, messages.response_untrusted):
        with contextlib.suppress(BadMessage):
            read(bytes(damaged))


def test_a_cover_is_of_different_pieces_in_order() -> None:
    pieces = tuple(PieceId(bytes([number]) * 32) for number in (9, 3, 7))
    assert contracts.covered_untrusted(memoryview(contracts.cover_body(pieces))) == pieces
    for body in (b"", bytes(33), bytes(64), bytes(32 * contracts.COVERED_PIECES_LIMIT + 32)):
        with pytest.raises(BadMessage):
            contracts.covered_untrusted(body)


def test_what_is_signed_is_all_of_a_request_its_body_and_where_it_is_said() -> None:
    request = contracts.Opened(KEY, KEY, SIGNATURE)
    bound = {
        "network": bytes(32),
        "host": NodeId(bytes(20)),
        "challenge": bytes(32),
        "number": 0,
        "request": request,
        "body": b"body",
    }
    statement = contracts.contract_statement(**bound)  # type: ignore[arg-type]
    changes = [
        ("network", bytes([1]) * 32),
        ("host", NodeId(bytes([1]) * 20)),
        ("challenge", bytes([1]) * 32),
        ("number", 1),
        ("request", contracts.Opened(KEY, bytes(32), SIGNATURE)),
        ("request", contracts.Standing(KEY, 1, SIGNATURE)),
        ("body", b"bodz"),
    ]
    for name, other in changes:
        assert contracts.contract_statement(**(bound | {name: other})) != statement  # type: ignore[arg-type]
    unsigned = msgspec.structs.replace(request, signature=contracts.UNSIGNED)
    assert contracts.contract_statement(**(bound | {"request": unsigned})) == statement  # type: ignore[arg-type]
