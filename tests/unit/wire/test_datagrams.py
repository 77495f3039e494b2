"""Datagrams: what goes in comes out, and nothing a stranger sends raises anything but BadMessage."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage
from layrfs.ids import NodeId
from layrfs.wire import datagrams
from layrfs.wire.datagrams import (
    DATAGRAM_LIMIT,
    MOST_NODES,
    NO_NETWORK,
    RECORD_LIMIT,
    REPLY_FACTOR,
    Filed,
    FileNode,
    FindNode,
    Hello,
    Message,
    Nodes,
    Ping,
    Pong,
    Reply,
    fitting_triples,
    open_untrusted,
    pack_ip,
    pack_triple,
    seal,
    unpack_ip_untrusted,
    unpack_triple_untrusted,
)

IDENTITY = NodeIdentity.from_private(random.Random(1).randbytes(32))
NETWORK = bytes(range(32))
ID = NodeId(bytes(range(20)))


def sealed(message: Message, network_id: bytes = NETWORK) -> bytes:
    return seal(IDENTITY, network_id, message, nonce=b"nonce123", time_ms=1_234_567_890_123, serving=True)


MESSAGES: list[Message] = [
    Ping(),
    Pong(b"record", b"\x7f\x00\x00\x01", 4000),
    FindNode(ID),
    Nodes(b"record", (pack_triple(ID, "10.0.0.1", 1), pack_triple(ID, "2001:db8::1", 65535))),
    FileNode(ID),
    Filed(b""),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_round_trip(message: Message) -> None:
    opened = open_untrusted(sealed(message))
    assert opened.message == message
    assert opened.sender == IDENTITY.node_id
    assert (opened.network_id, opened.nonce, opened.time_ms) == (NETWORK, b"nonce123", 1_234_567_890_123)
    assert opened.is_reply == isinstance(message, Reply)
    assert opened.serving
    assert opened.authentic()


def test_only_hello_has_no_network() -> None:
    assert open_untrusted(sealed(Hello(), NO_NETWORK)).message == Hello()
    for data in (sealed(Hello()), sealed(Ping(), NO_NETWORK)):
        with pytest.raises(BadMessage):
            open_untrusted(data)


@given(st.sampled_from(MESSAGES), st.integers(0), st.integers(0, 7))
def test_one_flipped_bit_is_refused_or_not_authentic(message: Message, place: int, bit: int) -> None:
    data = bytearray(sealed(message))
    data[place % len(data)] ^= 1 << bit
    try:
        opened = open_untrusted(bytes(data))
    except BadMessage:
        return
    assert not opened.authentic()


@given(st.binary(max_size=DATAGRAM_LIMIT + 10) | st.binary(max_size=100).map(lambda body: sealed(Ping())[:86] + body))
def test_noise_raises_bad_message(data: bytes) -> None:
    with pytest.raises(BadMessage):
        open_untrusted(data)


def test_a_reply_that_calls_itself_a_request_is_refused() -> None:
    for message in (Ping(), Filed(b"")):
        data = bytearray(sealed(message))
        data[5] ^= 1
        with pytest.raises(BadMessage):
            open_untrusted(bytes(data))


@pytest.mark.parametrize(
    "message",
    [
        FindNode(bytes(19)),
        FileNode(bytes(21)),
        Pong(bytes(RECORD_LIMIT + 1), b"", 0),
        Pong(b"", bytes(17), 0),
        Pong(b"", b"", 65536),
        Nodes(b"", (bytes(39),)),
        Nodes(b"", (b"",) * (MOST_NODES + 1)),
    ],
)
def test_fields_out_of_bounds_are_refused(message: Message) -> None:
    with pytest.raises(BadMessage):
        open_untrusted(sealed(message))


@pytest.mark.parametrize("ip", ["127.0.0.1", "255.255.255.255", "::1", "2001:db8::1", "fe80::1"])
def test_addresses_round_trip(ip: str) -> None:
    assert unpack_ip_untrusted(pack_ip(ip)) == ip
    assert unpack_triple_untrusted(pack_triple(ID, ip, 4000)) == (ID, ip, 4000)


@pytest.mark.parametrize(
    "rest", [b"", b"\1", b"\1\0", b"\0\0" + bytes(4), b"\1\0" + bytes(5), b"\1\0" + pack_ip("::ffff:1.2.3.4")]
)
def test_bad_triples(rest: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack_triple_untrusted(ID + rest)
    with pytest.raises(BadMessage):
        unpack_triple_untrusted(rest)


@given(
    st.lists(st.booleans(), max_size=40),
    st.integers(100, RECORD_LIMIT),
    st.integers(151, DATAGRAM_LIMIT),
)
def test_fitting_triples_fill_a_reply_and_never_overfill_it(
    families: list[bool], record_bytes: int, request_bytes: int
) -> None:
    triples = [pack_triple(ID, "2001:db8::1" if six else "10.0.0.1", 1) for six in families]
    chosen = fitting_triples(triples, record_bytes=record_bytes, request_bytes=request_bytes)
    assert list(chosen) == triples[: len(chosen)]
    limit = min(DATAGRAM_LIMIT, REPLY_FACTOR * request_bytes)
    if chosen:
        assert len(sealed(Nodes(bytes(record_bytes), chosen))) <= limit
    if len(chosen) < min(len(triples), MOST_NODES):
        more = tuple(triples[: len(chosen) + 1])
        assert len(sealed(Nodes(bytes(record_bytes), more))) > limit - 6


def test_a_padded_find_node_is_worth_a_full_answer() -> None:
    request = sealed(FindNode(ID))
    triples = [pack_triple(ID, "10.0.0.1", 1)] * 20
    assert len(fitting_triples(triples, record_bytes=180, request_bytes=len(request))) == 20


def test_the_header_is_as_documented() -> None:
    data = sealed(Ping())
    assert data[:6] == b"LYRD\x01\x02"
    assert data[6:38] == NETWORK
    assert data[38:70] == IDENTITY.public_key
    assert int.from_bytes(data[70:78], "little") == 1_234_567_890_123
    assert data[78:86] == b"nonce123"
    assert data[86:-64] == b"\x91\x01"
    assert datagrams.FIND_PADDING_BYTES == 200
