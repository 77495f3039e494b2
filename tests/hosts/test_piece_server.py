"""What strangers send to a host: dropped and counted, nobody else disturbed, no thread lost, no traceback."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from layrfs.crypto import merkle
from layrfs.crypto.identity import DUMMY_CA_PEM, NodeIdentity
from layrfs.ids import PieceId
from layrfs.model.root_record import BODY_LIMIT_BYTES, RootRecord
from layrfs.network.connections import HostRefused
from layrfs.network.links import HostLinks
from layrfs.network.piece_server import Answer, Counts, Limits, Visit
from layrfs.wire import messages
from layrfs.wire.codec import encode
from layrfs.wire.contracts import COVERED_PIECES_LIMIT, Cover, SignedLock
from layrfs.wire.frames import pack_prefix
from tests.hosts.local_host import (
    NETWORK,
    SECONDS,
    Fixed,
    LocalHost,
    deadline,
    dialled,
    ends,
    greeted,
    local_host,
    raw_tls,
    serving,
    wait_for,
)

DATA = random.Random(2).randbytes(300_000)
PIECE = merkle.piece_id(DATA)
TENANT = bytes([5]) * 32
HASTY = Limits(
    connections=8,
    connections_per_address=6,
    handshake_seconds=1.0,
    idle_seconds=30.0,
    header_seconds=1.0,
    body_seconds=1.0,
    slowest_bytes_per_second=1 << 30,
)


@pytest.fixture
def host(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[LocalHost]:
    """After each test the host still serves an honest owner, and nothing went wrong on our side."""
    with local_host(tmp_path / "host", limits=HASTY) as host:
        yield host
        wait_for(lambda: host.server.connections == 0)
        links = HostLinks(NodeIdentity.generate(), NETWORK)
        links.store(host.address, PIECE, DATA, tenant_private=TENANT, deadline_seconds=SECONDS)
        assert links.retrieve(host.address, PIECE, deadline_seconds=SECONDS) == DATA
        links.close()
        assert host.dropped("our mistake") == 0
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def frame(message: messages.Hello | messages.Request, body: bytes = b"") -> bytes:
    header = encode(message)
    return pack_prefix(len(header), len(body)) + header + body


HELLO = frame(messages.Hello(NETWORK))
STORE = messages.Store(PIECE, NodeIdentity(TENANT).public_key)
ROOT = RootRecord.sign(TENANT, version=1, time_ms=1, body=bytes(BODY_LIMIT_BYTES))
PUT_ROOT = encode(messages.PutRoot())

FIRST_BYTES = {
    "nothing, then gone": b"",
    "http": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "zeros": bytes(5000),
    "half a client hello": bytes.fromhex("16030102000100"),
    "a record of another kind": bytes.fromhex("17030300100000"),
    "noise": random.Random(3).randbytes(3000),
}


@pytest.mark.parametrize("name", FIRST_BYTES)
def test_no_tls(host: LocalHost, name: str) -> None:
    with dialled(host) as raw:
        with contextlib.suppress(OSError):  # it may have had enough before the end
            raw.sendall(FIRST_BYTES[name])
            raw.shutdown(socket.SHUT_WR)
        wait_for(lambda: sum(host.counts.snapshot().values()) == 1)


def test_a_handshake_that_never_ends(host: LocalHost) -> None:
    with dialled(host) as raw:
        assert ends(raw)
    wait_for(lambda: host.dropped("too slow") == 1)


def bare_context(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=DUMMY_CA_PEM.decode())
    context.minimum_version = context.maximum_version = version
    return context


def test_a_client_without_a_certificate(host: LocalHost) -> None:
    context = bare_context(ssl.TLSVersion.TLSv1_3)
    with dialled(host) as raw, context.wrap_socket(raw) as secured:
        assert ends(secured)
    wait_for(lambda: host.dropped("failed handshake or cipher") == 1)


def test_an_older_tls(host: LocalHost) -> None:
    context = bare_context(ssl.TLSVersion.TLSv1_2)
    with dialled(host) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw)
    wait_for(lambda: host.dropped("failed handshake or cipher") == 1)


BEFORE_HELLO = {
    "a request instead of a hello": frame(messages.Has((PIECE,))),
    "a hello with a body": frame(messages.Hello(NETWORK), b"body"),
    "a header of 4 GiB": struct.pack("<II", 0xFFFFFFFF, 0),
    "an empty header": struct.pack("<II", 0, 0),
    "a body of 4 GiB": struct.pack("<II", 10, 0xFFFFFFFF),
    "garbage": random.Random(4).randbytes(64),
    "a header that is not msgpack": struct.pack("<II", 100, 0) + bytes([0xC1]) * 100,
}


@pytest.mark.parametrize("name", BEFORE_HELLO)
def test_no_proper_hello(host: LocalHost, name: str) -> None:
    with raw_tls(host) as connection:
        connection.sendall(BEFORE_HELLO[name])
        assert ends(connection)
    wait_for(lambda: host.dropped("bad message") == 1)


COVER = encode(Cover(bytes(32), bytes(32), 0, 0, 1, 2, (SignedLock(1, bytes(32), bytes(64)),), bytes(64)))
PROVEN = encode(messages.Proven(1, ((),)))

AFTER_HELLO = {
    "a second hello": HELLO,
    "a body where none belongs": frame(messages.Has((PIECE,)), b"body"),
    "a cover of too many pieces": struct.pack("<II", len(COVER), 32 * COVERED_PIECES_LIMIT + 32) + COVER,
    "a body where a root record is asked for": frame(messages.GetRoot(ROOT.volume), b"body"),
    "a root record just too large": struct.pack("<II", len(PUT_ROOT), messages.ROOT_LIMIT_BYTES + 1) + PUT_ROOT,
    "a root record as large as a piece": struct.pack("<II", len(PUT_ROOT), 5 << 20) + PUT_ROOT,
    "an answer": struct.pack("<II", len(encode(messages.Stored())), 0) + encode(messages.Stored()),
    "a challenge for no leaves": frame(messages.Prove(PIECE, bytes(32), 0)),
    "a challenge for too many leaves": frame(messages.Prove(PIECE, bytes(32), 33)),
    "a challenge of a short nonce": frame(messages.Prove(PIECE, bytes(31))),
    "a challenge with a body": frame(messages.Prove(PIECE, bytes(32)), b"body"),
    "a question of another kind": frame(messages.Answer(PIECE, bytes(32), "half")),
    "a question with a body": frame(messages.Answer(PIECE, bytes(32)), b"body"),
    "proof instead of a challenge": struct.pack("<II", len(PROVEN), 0) + PROVEN,
    "a header of 4 GiB": struct.pack("<II", 0xFFFFFFFF, 0),
    "a body of 4 GiB": struct.pack("<II", len(encode(STORE)), 0xFFFFFFFF) + encode(STORE),
    "a body just too large": struct.pack("<II", len(encode(STORE)), (5 << 20) + 1) + encode(STORE),
    "garbage": random.Random(5).randbytes(64),
}


@pytest.mark.parametrize("name", AFTER_HELLO)
def test_no_proper_request(host: LocalHost, name: str) -> None:
    with greeted(host) as (connection, _):
        connection.sendall(AFTER_HELLO[name])
        assert ends(connection)
    wait_for(lambda: host.dropped("bad message") == 1)


CUT_OFF = {
    "in the prefix": frame(STORE, DATA)[:5],
    "in the header": frame(STORE, DATA)[:30],
    "in the body": frame(STORE, DATA)[:200_000],
}


@pytest.mark.parametrize("name", CUT_OFF)
def test_half_a_frame(host: LocalHost, name: str) -> None:
    with greeted(host) as (connection, _):
        connection.sendall(CUT_OFF[name])
    wait_for(lambda: host.dropped("cut off") == 1)


@pytest.mark.parametrize("name", CUT_OFF)
def test_half_a_frame_and_then_silence(host: LocalHost, name: str) -> None:
    with greeted(host) as (connection, _):
        connection.sendall(CUT_OFF[name])
        assert ends(connection)
    wait_for(lambda: host.dropped("too slow") == 1)


def test_a_frame_byte_by_byte_does_not_outlive_its_deadline(host: LocalHost) -> None:
    with greeted(host) as (connection, _):
        connection.settimeout(0.05)
        dripped = 0
        try:
            for byte in frame(STORE, DATA):
                connection.sendall(bytes([byte]))
                dripped += 1
                drip(connection)
        except OSError:
            pass
    assert 0 < dripped < 200
    wait_for(lambda: host.dropped("too slow") == 1)


def drip(connection: ssl.SSLSocket) -> None:
    """Wait a moment between two bytes; raises OSError when the other end has had enough."""
    try:
        if connection.recv(1) == b"":
            raise ConnectionResetError
    except TimeoutError:
        pass


@pytest.mark.parametrize(
    ("hello", "reason"), [(messages.Hello(bytes(32)), "network"), (messages.Hello(NETWORK, 2), "version")]
)
def test_another_network_or_protocol_is_told_so_and_dropped(
    host: LocalHost, hello: messages.Hello, reason: str
) -> None:
    with raw_tls(host) as connection:
        connection.sendall(frame(hello))
        refusal = msgspec.msgpack.encode({"type": "refused", "reason": reason})
        assert received(connection, 8 + len(refusal)) == struct.pack("<II", len(refusal), 0) + refusal
        assert ends(connection)
    wait_for(lambda: host.dropped(f"wrong {reason}") == 1)


def received(connection: ssl.SSLSocket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def test_the_wrong_piece_is_never_on_the_disk(host: LocalHost, tmp_path: Path) -> None:
    with greeted(host) as (connection, talk):
        connection.sendall(frame(messages.Store(PieceId(bytes(32)), bytes(32)), DATA))
        answer, _ = talk._response(deadline())
        assert answer == messages.Refused("wrong piece")
    assert [path for path in (tmp_path / "host").rglob("*") if path.is_file() and path.name != "format"] == []


def test_root_records_as_large_as_they_may_be(host: LocalHost) -> None:
    with greeted(host) as (connection, talk):
        connection.sendall(frame(messages.PutRoot(), bytes(messages.ROOT_LIMIT_BYTES)))
        assert talk._response(deadline())[0] == messages.Refused("bad root")
        connection.sendall(frame(messages.PutRoot(), ROOT.to_bytes()) + frame(messages.GetRoot(ROOT.volume)))
        assert talk._response(deadline())[0] == messages.RootKept()
        answer, body_bytes = talk._response(deadline())
        assert (answer, body_bytes) == (messages.RootFound(), len(ROOT.to_bytes()))
        assert received(connection, body_bytes) == ROOT.to_bytes()


def test_requests_may_come_in_one_go(host: LocalHost) -> None:
    with greeted(host) as (connection, talk):
        connection.sendall(frame(STORE, DATA) + frame(messages.Has((PIECE,))) * 3)
        found = [talk._response(deadline())[0] for _ in range(4)]
    assert found == [messages.Stored(), *[messages.Held((True,))] * 3]


def test_too_many_connections(host: LocalHost) -> None:
    opened = [dialled(host) for _ in range(10)]
    try:
        wait_for(lambda: host.dropped("too many connections") == 4)
        assert host.server.connections <= 6
    finally:
        for connection in opened:
            connection.close()


def test_an_idle_connection_ends_quietly(tmp_path: Path) -> None:
    with local_host(tmp_path, limits=Limits(idle_seconds=0.2)) as host:
        with greeted(host) as (connection, _):
            assert ends(connection)
        assert host.counts.snapshot() == {}


def test_who_reads_too_slowly_is_dropped() -> None:
    answer = Answer(messages.Retrieved(4 << 20), bytes(4 << 20))
    limits = Limits(body_seconds=0.3, slowest_bytes_per_second=1 << 30)
    with serving(Fixed(answer), Counts(), limits=limits) as host, greeted(host) as (connection, _):
        connection.sendall(frame(messages.Retrieve(PIECE)) * 8)
        wait_for(lambda: host.dropped("too slow") == 1)


def test_who_sends_or_takes_nothing_is_dropped_long_before_the_whole_body_would_have_to_be_over() -> None:
    limits = Limits(body_seconds=0.1, slowest_bytes_per_second=200 * 1024)
    assert limits.body_deadline(4 << 20) - time.monotonic() > SECONDS
    answer = Answer(messages.Retrieved(4 << 20), bytes(4 << 20))
    with serving(Fixed(answer), Counts(), limits=limits) as host, greeted(host) as (reader, _):
        reader.sendall(frame(messages.Retrieve(PIECE)) * 8)
        with greeted(host) as (writer, _):
            writer.sendall(frame(STORE, bytes(4 << 20))[: 300 * 1024])
            wait_for(lambda: host.dropped("too slow") == 2)


def test_stores_that_never_arrive_keep_nobody_from_reading(tmp_path: Path) -> None:
    with local_host(tmp_path, limits=Limits(bodies=2, queue_seconds=0.0)) as host, contextlib.ExitStack() as silent:
        links = HostLinks(NodeIdentity.generate(), NETWORK)
        links.store(host.address, PIECE, DATA, tenant_private=TENANT, deadline_seconds=SECONDS)

        def one_more_keeps_it_busy() -> bool:
            """It is refused, should the place of what was asked before not be free yet."""
            connection, _challenge = silent.enter_context(greeted(host))
            connection.sendall(frame(STORE, DATA)[:1000])
            return is_busy(links, host)

        wait_for(one_more_keeps_it_busy)
        assert links.retrieve(host.address, PIECE, deadline_seconds=SECONDS) == DATA
        links.close()


def test_a_body_that_is_refused_holds_no_place_until_it_is_here(tmp_path: Path) -> None:
    limits = Limits(bodies=1, queue_seconds=0.0)
    with local_host(tmp_path, space_bytes=1 << 20, limits=limits) as host, greeted(host) as (connection, _):
        connection.sendall(frame(STORE, bytes(2 << 20))[:1000])
        wait_for(lambda: host.dropped("full") == 1)
        links = HostLinks(NodeIdentity.generate(), NETWORK)
        wait_for(lambda: not is_busy(links, host))
        links.close()


def is_busy(links: HostLinks, host: LocalHost) -> bool:
    small = b"a piece that the host has not yet"
    try:
        links.store(host.address, merkle.piece_id(small), small, tenant_private=TENANT, deadline_seconds=SECONDS)
    except HostRefused as refusal:
        return refusal.reason == "busy"
    return False


class Mistaken(Fixed):
    """A service with a bug."""

    def answer(self, _visit: Visit, _request: messages.Request, _body: memoryview) -> Answer:
        raise ZeroDivisionError


def test_a_mistake_of_ours_costs_one_connection() -> None:
    with serving(Mistaken(None), Counts()) as host:
        for times in (1, 2):
            with greeted(host) as (connection, _):
                connection.sendall(frame(messages.Has((PIECE,))))
                assert ends(connection)
            wait_for(lambda times=times: host.dropped("our mistake") == times)  # type: ignore[misc]


def test_closing_cuts_everybody_off(tmp_path: Path) -> None:
    with local_host(tmp_path) as host:
        with dialled(host) as raw, greeted(host) as (connection, _):
            wait_for(lambda: host.server.connections == 2)
            host.server.close()
            assert ends(connection)
            assert ends(raw)
        assert host.counts.snapshot() == {}, "our closing is nobody's fault"
