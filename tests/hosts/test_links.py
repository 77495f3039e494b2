"""The client against real hosts over real TLS on loopback, and against hosts that lie, hang or are somebody else."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from layrfs.crypto import challenges, merkle
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage, LayrError, MissingPiece, TimedOut, Unreachable, WrongBytes
from layrfs.ids import PieceId
from layrfs.model.records import HostAddress
from layrfs.model.root_record import RootRecord
from layrfs.network.links import Cancellation, HostLinks, HostRefused
from layrfs.network.piece_server import Answer, Counts, Limits
from layrfs.wire import messages
from layrfs.wire.codec import encode
from layrfs.wire.frames import pack_prefix
from tests.hosts.local_host import (
    NETWORK,
    SECONDS,
    Fixed,
    LocalHost,
    SilentLater,
    greeted,
    local_host,
    serving,
    wait_for,
)

TENANT, OTHER = bytes([5]) * 32, bytes([6]) * 32
SIZE = (4 << 20) + 1234
DATA = random.Random(1).randbytes(SIZE)
PIECE = merkle.piece_id(DATA)
ABSENT = PieceId(bytes(32))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    with local_host(tmp_path / "host") as host:
        yield host


@pytest.fixture
def links() -> Iterator[HostLinks]:
    links = HostLinks(NodeIdentity.generate(), NETWORK)
    yield links
    links.close()


def store(links: HostLinks, host: LocalHost, data: bytes = DATA, tenant: bytes = TENANT) -> PieceId:
    piece = merkle.piece_id(data)
    links.store(host.address, piece, data, tenant_private=tenant, deadline_seconds=SECONDS)
    return piece


def test_store_retrieve_has_delete(host: LocalHost, links: HostLinks) -> None:
    assert links.has(host.address, [PIECE, ABSENT]) == [False, False]
    store(links, host)
    assert links.has(host.address, [PIECE, ABSENT]) == [True, False]
    assert links.retrieve(host.address, PIECE, deadline_seconds=SECONDS) == DATA
    assert links.renew(host.address, [PIECE, ABSENT], TENANT) == [True, False]
    assert links.renew(host.address, [PIECE], OTHER) == [False]
    assert links.delete(host.address, [PIECE, ABSENT], OTHER) == 0
    assert links.delete(host.address, [PIECE, ABSENT], TENANT) == 1
    with pytest.raises(MissingPiece):
        links.retrieve(host.address, PIECE, deadline_seconds=SECONDS)


NONCE, SALT = bytes([8]) * 32, bytes([9]) * 32


def prove(links: HostLinks, address: HostAddress, piece: PieceId = PIECE, leaves: int = 3) -> None:
    links.prove(address, piece, SIZE, NONCE, leaves, deadline_seconds=SECONDS)


@pytest.mark.parametrize("leaves", [1, 32])
def test_a_host_proves_what_it_has(host: LocalHost, links: HostLinks, leaves: int) -> None:
    with pytest.raises(MissingPiece):
        prove(links, host.address, leaves=leaves)
    store(links, host)
    prove(links, host.address, leaves=leaves)
    prove(links, host.address, leaves=leaves)
    with pytest.raises(MissingPiece):
        prove(links, host.address, ABSENT)
    with pytest.raises(WrongBytes):
        links.prove(host.address, PIECE, SIZE - 1, NONCE, leaves, deadline_seconds=SECONDS)
    prove(links, host.address, leaves=leaves)


@pytest.mark.parametrize("size", [0, 1, 16384, 16385])
def test_small_pieces_are_shown_whole(host: LocalHost, links: HostLinks, size: int) -> None:
    piece = store(links, host, bytes(size))
    links.prove(host.address, piece, size, NONCE, 32, deadline_seconds=SECONDS)


@pytest.mark.parametrize("kind", ["whole", "leaves"])
def test_a_host_answers_for_what_it_has(host: LocalHost, links: HostLinks, kind: challenges.AnswerKind) -> None:
    with pytest.raises(MissingPiece):
        links.answer(host.address, PIECE, SALT, kind, deadline_seconds=SECONDS)
    store(links, host)
    digest = links.answer(host.address, PIECE, SALT, kind, deadline_seconds=SECONDS)
    assert digest == challenges.answer_digest(SALT, PIECE, DATA, kind)
    itself = HostLinks(host.identity, NETWORK)
    assert itself.status(host.address).audits_answered == 1, "what it refused is not counted"
    itself.close()


class SlowLine:
    """A relay to a host that passes on so many bytes a second either way; ``freeze`` stops it for good."""

    def __init__(self, host: LocalHost, bytes_per_second: int) -> None:
        self._rate, self._target = bytes_per_second, host.address
        self._frozen, self._ended = threading.Event(), threading.Event()
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.address = HostAddress(host.address.node_id, "127.0.0.1", self._sockets[0].getsockname()[1])
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def freeze(self) -> None:
        self._frozen.set()

    def close(self) -> None:
        self._ended.set()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def _serve(self) -> None:
        near, _ = self._sockets[0].accept()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        far = socket.create_connection((self._target.ip, self._target.port))
        self._sockets += [near, far]
        self._threads.append(threading.Thread(target=self._pass_on, args=(far, near, self._rate)))
        self._threads[-1].start()
        self._pass_on(near, far, self._rate)

    def _pass_on(self, source: socket.socket, target: socket.socket, rate: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(8192):
                target.sendall(data)
                self._ended.wait(len(data) / rate)
                if self._frozen.is_set():
                    self._ended.wait()


@pytest.fixture
def slow_line(host: LocalHost) -> Iterator[SlowLine]:
    line = SlowLine(host, 2 << 20)
    yield line
    line.close()


def test_a_slow_line_is_no_silence(slow_line: SlowLine, host: LocalHost, links: HostLinks) -> None:
    moves: list[float] = []
    links.store(
        slow_line.address,
        PIECE,
        DATA,
        tenant_private=TENANT,
        deadline_seconds=SECONDS,
        stall_seconds=1.5,
        moved=lambda: moves.append(time.monotonic()),
    )
    assert links.has(host.address, [PIECE]) == [True]
    assert moves, "whoever waits is told that bytes arrive"


def test_a_line_that_freezes_in_the_middle_is_given_up_soon(slow_line: SlowLine, links: HostLinks) -> None:
    started = time.monotonic()
    with pytest.raises(Unreachable, match="in time"):
        links.store(
            slow_line.address,
            PIECE,
            DATA,
            tenant_private=TENANT,
            deadline_seconds=SECONDS,
            stall_seconds=0.5,
            moved=slow_line.freeze,
        )
    assert time.monotonic() - started < SECONDS / 2


def test_what_comes_slowly_is_waited_for(slow_line: SlowLine, host: LocalHost, links: HostLinks) -> None:
    store(links, host)
    arrivals: list[float] = []
    data = links.retrieve(
        slow_line.address,
        PIECE,
        deadline_seconds=SECONDS,
        stall_seconds=1.5,
        arrived=lambda: arrivals.append(time.monotonic()),
    )
    assert data == DATA
    assert arrivals[-1] - arrivals[0] > 1.5, "longer in all than nothing may come"


def test_what_stops_coming_in_the_middle_is_given_up_soon(
    slow_line: SlowLine, host: LocalHost, links: HostLinks
) -> None:
    store(links, host)
    started = time.monotonic()
    with pytest.raises(Unreachable, match="in time"):
        links.retrieve(slow_line.address, PIECE, deadline_seconds=SECONDS, stall_seconds=0.3, arrived=slow_line.freeze)
    assert time.monotonic() - started < SECONDS / 2


def test_the_inventory_of_a_tenant(host: LocalHost, links: HostLinks) -> None:
    data = [bytes([number]) * 10 for number in range(6)]
    pieces = [store(links, host, each, (TENANT, OTHER)[number % 2]) for number, each in enumerate(data)]
    noted = merkle.piece_id(b"noted")
    links.store(host.address, noted, b"noted", tenant_private=TENANT, note=b"of mine", deadline_seconds=SECONDS)
    listing = links.inventory(host.address, ABSENT, TENANT)
    notes = {listed.piece: listed.note for listed in listing.pieces}
    assert notes == dict.fromkeys(pieces[0::2], b"") | {noted: b"of mine"}
    assert listing.through is None
    again = links.inventory(host.address, max(notes), TENANT)
    assert (again.pieces, again.through) == ((), None)
    assert links.inventory(host.address, ABSENT, bytes(32)).pieces == ()
    assert host.server.connections == 1


LISTED = [messages.Listed(PieceId(bytes([number]) * 32), 0, b"") for number in range(4)]


@pytest.mark.parametrize(
    "lie",
    [
        messages.Listing((LISTED[3], LISTED[2])),
        messages.Listing((LISTED[2], LISTED[2])),
        messages.Listing((LISTED[1],)),
        messages.Listing((LISTED[3],), LISTED[2].piece),
        messages.Listing((), LISTED[1].piece),
        messages.Listing((), LISTED[0].piece),
        messages.Held((True,)),
    ],
)
def test_a_listing_that_would_never_end_or_is_out_of_order(lie: messages.Response, links: HostLinks) -> None:
    with serving(Fixed(Answer(lie)), Counts()) as host, pytest.raises(BadMessage):
        links.inventory(host.address, LISTED[1].piece, TENANT)


def test_one_connection_serves_them_all(host: LocalHost, links: HostLinks) -> None:
    for number in range(5):
        store(links, host, bytes([number]) * 1000)
    with pytest.raises(MissingPiece):
        links.retrieve(host.address, ABSENT, deadline_seconds=SECONDS)
    assert host.server.connections == 1


@pytest.mark.parametrize("size", [0, 1, 16384, 16385])
def test_small_pieces(host: LocalHost, links: HostLinks, size: int) -> None:
    data = random.Random(size).randbytes(size)
    piece = store(links, host, data)
    assert links.retrieve(host.address, piece, deadline_seconds=SECONDS) == data
    assert links.retrieve(host.address, piece, deadline_seconds=SECONDS, offset=1, length=1) == data[1:2]


INSIDE = [(0, 1), (0, 16384), (1, 16384), (16383, 2), (1_000_000, 1_000_000)]
RANGES = [*INSIDE, (SIZE - 1, 1), (SIZE - 1, 99), (SIZE, 1), (9 * SIZE, 1)]


@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_ranges(host: LocalHost, links: HostLinks, offset: int, length: int) -> None:
    store(links, host)
    found = links.retrieve(host.address, PIECE, deadline_seconds=SECONDS, offset=offset, length=length)
    assert found == DATA[offset : offset + length]


def test_the_rest_from_an_offset(host: LocalHost, links: HostLinks) -> None:
    store(links, host)
    assert links.retrieve(host.address, PIECE, deadline_seconds=SECONDS, offset=SIZE - 20_000) == DATA[-20_000:]
    assert links.retrieve(host.address, PIECE, deadline_seconds=SECONDS, offset=7, length=0) == b""


def test_many_pieces_in_one_question(host: LocalHost, links: HostLinks) -> None:
    piece = store(links, host, b"x")
    asked = [PieceId(number.to_bytes(32, "big")) for number in range(2500)]
    assert links.has(host.address, [*asked, piece]) == [False] * 2500 + [True]
    assert links.delete(host.address, [*asked, piece], TENANT) == 1


def test_wrong_bytes_are_refused_and_the_connection_stays_good(host: LocalHost, links: HostLinks) -> None:
    with pytest.raises(HostRefused) as refusal:
        links.store(host.address, ABSENT, DATA, tenant_private=TENANT, deadline_seconds=SECONDS)
    assert refusal.value.reason == "wrong piece"
    store(links, host)
    assert host.server.connections == 1
    assert host.dropped("wrong piece") == 1


def test_a_full_host_says_so(tmp_path: Path, links: HostLinks) -> None:
    with local_host(tmp_path, space_bytes=SIZE) as host:
        with pytest.raises(HostRefused) as refusal:
            store(links, host)
        assert refusal.value.reason == "full"
        store(links, host, b"small")


def test_a_busy_host_says_so(tmp_path: Path, links: HostLinks) -> None:
    limits = Limits(bodies=1, bodies_per_peer=1, queue_seconds=0.0)
    with local_host(tmp_path, limits=limits) as host:
        with greeted(host) as (connection, _):
            header = encode(messages.Store(ABSENT, bytes(32)))
            connection.sendall(pack_prefix(len(header), 1000) + header + b"half a body")
            wait_for(lambda: is_busy(links, host))
        wait_for(lambda: not is_busy(links, host))


def is_busy(links: HostLinks, host: LocalHost) -> bool:
    try:
        store(links, host, b"small")
    except HostRefused as refusal:
        return refusal.reason == "busy"
    return False


def test_a_root_record_there_and_back(host: LocalHost, links: HostLinks) -> None:
    old, new = (RootRecord.sign(TENANT, version=version, time_ms=1, body=b"sealed") for version in (1, 2))
    assert links.get_root(host.address, new.volume) is None
    links.put_root(host.address, new.to_bytes())
    for record, reason in ((old.to_bytes(), "stale"), (new.to_bytes()[:-1] + b"?", "bad root")):
        with pytest.raises(HostRefused) as refusal:
            links.put_root(host.address, record)
        assert refusal.value.reason == reason
    assert links.get_root(host.address, new.volume) == new.to_bytes()
    assert host.server.connections == 1, "refusals leave the connection good"


def test_another_node_at_the_address_gets_nothing(host: LocalHost, links: HostLinks) -> None:
    expected = HostAddress(NodeIdentity.generate().node_id, "127.0.0.1", host.address.port)
    with pytest.raises(Unreachable, match="another node"):
        links.has(expected, [PIECE])


def test_another_network_is_refused(host: LocalHost) -> None:
    stranger = HostLinks(NodeIdentity.generate(), bytes(32))
    with pytest.raises(HostRefused) as refusal:
        stranger.has(host.address, [PIECE])
    assert refusal.value.reason == "network"
    wait_for(lambda: host.dropped("wrong network") == 1)
    stranger.close()


def test_status_is_told_to_the_host_itself_only(host: LocalHost, links: HostLinks) -> None:
    store(links, host)
    with pytest.raises(HostRefused):
        links.status(host.address)
    itself = HostLinks(host.identity, NETWORK)
    report = itself.status(host.address)
    assert (report.pieces, report.requests["store"], report.dropped) == (1, 1, {"not allowed": 1})
    itself.close()


def test_nobody_listens(links: HostLinks) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = HostAddress(NodeIdentity.generate().node_id, "127.0.0.1", closed.getsockname()[1])
        with pytest.raises(Unreachable, match="cannot be reached"):
            links.has(address, [PIECE])


def test_a_host_that_restarted_is_found_again_behind_dead_connections(tmp_path: Path, links: HostLinks) -> None:
    identity = NodeIdentity.generate()
    with local_host(tmp_path, identity=identity) as host:
        store(links, host)
    with local_host(tmp_path, identity=identity, port=host.address.port):
        assert links.retrieve(host.address, PIECE, deadline_seconds=SECONDS) == DATA


@pytest.mark.parametrize(
    "ask", ["has", "delete", "renew", "store", "retrieve", "prove", "answer", "put root", "get root"]
)
def test_a_silent_host_costs_the_deadline_and_no_more(ask: str, links: HostLinks) -> None:
    calls: dict[str, Callable[[HostAddress], object]] = {
        "has": lambda address: links.has(address, [PIECE], deadline_seconds=0.3),
        "delete": lambda address: links.delete(address, [PIECE], TENANT, deadline_seconds=0.3),
        "renew": lambda address: links.renew(address, [PIECE], TENANT, deadline_seconds=0.3),
        "store": lambda address: links.store(address, PIECE, DATA, tenant_private=TENANT, deadline_seconds=0.3),
        "retrieve": lambda address: links.retrieve(address, PIECE, deadline_seconds=0.3),
        "prove": lambda address: links.prove(address, PIECE, SIZE, NONCE, 1, deadline_seconds=0.3),
        "answer": lambda address: links.answer(address, PIECE, SALT, "leaves", deadline_seconds=0.3),
        "put root": lambda address: links.put_root(address, b"record", deadline_seconds=0.3),
        "get root": lambda address: links.get_root(address, bytes(32), deadline_seconds=0.3),
    }
    silent = SilentLater()
    with serving(silent, Counts()) as host:
        assert links.has(host.address, [PIECE]) == [False]
        with pytest.raises(TimedOut, match="in time"):
            calls[ask](host.address)
        silent.released.set()


def test_a_host_that_accepts_and_says_nothing_at_all(links: HostLinks) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = HostAddress(NodeIdentity.generate().node_id, "127.0.0.1", listener.getsockname()[1])
        with pytest.raises(Unreachable, match="in time") as caught:
            links.has(address, [PIECE], deadline_seconds=0.3)
        assert not isinstance(caught.value, TimedOut), "nothing shows that the host itself is there"


def test_a_deadline_that_has_passed_is_not_waited_for(host: LocalHost) -> None:
    with greeted(host) as (_, connection):
        with pytest.raises(TimeoutError):
            connection.stream.receive_into(memoryview(bytearray(1)), time.monotonic() - 1)
        with pytest.raises(TimeoutError):
            connection.stream.send(b"header", b"", time.monotonic() - 1)


def answers(body: bytes, **fields: object) -> Answer:
    return Answer(messages.Retrieved(**({"piece_bytes": SIZE} | fields)), body)  # type: ignore[arg-type]


LIES: list[tuple[Answer, type[LayrError]]] = [
    (answers(DATA[:-1] + b"x"), WrongBytes),
    (answers(DATA[:-1]), WrongBytes),
    (answers(b""), WrongBytes),
    (Answer(messages.Stored()), BadMessage),
    (Answer(messages.Refused("missing"), b"body"), BadMessage),
    (Answer(messages.Refused("missing")), MissingPiece),
]


@pytest.mark.parametrize(("lie", "error"), LIES)
def test_a_lying_host(lie: Answer, error: type[LayrError], links: HostLinks) -> None:
    with serving(Fixed(lie), Counts()) as host, pytest.raises(error):
        links.retrieve(host.address, PIECE, deadline_seconds=SECONDS)


HASHES = merkle.leaf_hashes(DATA)
LEAF = DATA[16384:32768]
RANGE_LIES = [
    answers(LEAF, first_leaf=1),
    answers(LEAF, first_leaf=2, proof=tuple(merkle.prove(HASHES, 1, 1))),
    answers(LEAF, first_leaf=1, proof=tuple(merkle.prove(HASHES, 1, 1)), piece_bytes=SIZE - 1),
    answers(bytes(16384), first_leaf=1, proof=tuple(merkle.prove(HASHES, 1, 1))),
    answers(DATA[:16384], first_leaf=0, proof=tuple(merkle.prove(HASHES, 0, 1))),
    answers(DATA[32768:49152], first_leaf=2, proof=tuple(merkle.prove(HASHES, 2, 1))),
]


@pytest.mark.parametrize("lie", RANGE_LIES)
def test_a_lying_host_asked_for_a_range(lie: Answer, links: HostLinks) -> None:
    with serving(Fixed(lie), Counts()) as host, pytest.raises(WrongBytes):
        links.retrieve(host.address, PIECE, deadline_seconds=SECONDS, offset=20_000, length=5)


def shown(leaves: Sequence[int], data: bytes = DATA, piece_bytes: int = SIZE, proofs: int | None = None) -> Answer:
    """What a host that has `data` shows when it is challenged for these leaves."""
    body = b"".join(data[leaf * 16384 : (leaf + 1) * 16384] for leaf in leaves)
    proven = tuple(merkle.prove_each(merkle.leaf_hashes(data), leaves))[:proofs]
    return Answer(messages.Proven(piece_bytes, proven), body)


CHOSEN = challenges.chosen_leaves(NONCE, PIECE, 257, 3)
ROTTEN = bytearray(DATA)
ROTTEN[CHOSEN[1] * 16384] ^= 1
OF_THE_GOOD = tuple(merkle.prove_each(HASHES, CHOSEN))
FALSE_PROOFS = {
    "for another nonce": shown(challenges.chosen_leaves(SALT, PIECE, 257, 3)),
    "fewer leaves": shown(CHOSEN[:2]),
    "more leaves": shown((*CHOSEN, 256)),
    "fewer proofs": shown(CHOSEN, proofs=2),
    "another order": shown(CHOSEN[::-1]),
    "another length": shown(CHOSEN, piece_bytes=SIZE - 1),
    "of another piece": shown(CHOSEN, data=DATA[::-1]),
    "one bit": shown(CHOSEN, data=bytes(ROTTEN)),
    "one bit, and the hashes kept": Answer(messages.Proven(SIZE, OF_THE_GOOD), shown(CHOSEN, data=bytes(ROTTEN)).body),
    "no bytes, and the hashes kept": Answer(messages.Proven(SIZE, OF_THE_GOOD)),
    "the whole piece": Answer(messages.Retrieved(SIZE), DATA),
    "another answer": Answer(messages.Answered(NONCE)),
    "a refusal with a body": Answer(messages.Refused("missing"), b"body"),
}


@pytest.mark.parametrize("lie", FALSE_PROOFS)
def test_a_false_proof_is_wrong_bytes(lie: str, links: HostLinks) -> None:
    with serving(Fixed(FALSE_PROOFS[lie]), Counts()) as host, pytest.raises(WrongBytes):
        prove(links, host.address)


def test_the_same_proof_without_the_lie() -> None:
    assert challenges.are_proven(PIECE, SIZE, CHOSEN, shown(CHOSEN).body, OF_THE_GOOD)


@pytest.mark.parametrize("lie", ["the whole piece", "for another nonce", "a refusal with a body"])
def test_an_answer_that_is_none_is_wrong_bytes(lie: str, links: HostLinks) -> None:
    with serving(Fixed(FALSE_PROOFS[lie]), Counts()) as host, pytest.raises(WrongBytes):
        links.answer(host.address, PIECE, SALT, "leaves", deadline_seconds=SECONDS)


@pytest.mark.parametrize("reason", ["busy", "failed", "not allowed"])
def test_a_refused_audit_is_no_failed_one(reason: messages.Reason, links: HostLinks) -> None:
    with serving(Fixed(Answer(messages.Refused(reason))), Counts()) as host, pytest.raises(HostRefused):
        prove(links, host.address)


def test_a_host_that_answers_for_other_pieces_than_asked(links: HostLinks) -> None:
    with serving(Fixed(Answer(messages.Held((True, True)))), Counts()) as host, pytest.raises(BadMessage):
        links.has(host.address, [PIECE])


def test_a_retrieve_can_be_called_off_in_flight(links: HostLinks) -> None:
    silent, wish, outcome = Fixed(None), Cancellation(), []

    def retrieve(address: HostAddress) -> None:
        try:
            links.retrieve(address, PIECE, deadline_seconds=3 * SECONDS, cancellation=wish)
        except Unreachable as error:
            outcome.append(str(error))

    with serving(silent, Counts()) as host:
        thread = threading.Thread(target=retrieve, args=(host.address,))
        thread.start()
        assert silent.asked.wait(SECONDS)
        wish.cancel()
        thread.join(SECONDS)
        still_waiting = thread.is_alive()
        silent.released.set()
        thread.join(SECONDS)
    assert not still_waiting
    assert outcome == ["the call is no longer wanted"]


def test_a_call_that_is_off_before_it_starts_sends_nothing(host: LocalHost, links: HostLinks) -> None:
    wish = Cancellation()
    wish.cancel()
    with pytest.raises(Unreachable, match="no longer wanted"):
        links.retrieve(host.address, PIECE, deadline_seconds=SECONDS, cancellation=wish)
    assert host.server.connections == 0


def test_calling_off_what_is_over_does_not_hurt_the_next_call(host: LocalHost, links: HostLinks) -> None:
    store(links, host)
    wish = Cancellation()
    links.retrieve(host.address, PIECE, deadline_seconds=SECONDS, cancellation=wish)
    wish.cancel()
    assert links.retrieve(host.address, PIECE, deadline_seconds=SECONDS) == DATA
    assert host.server.connections == 1


def test_many_threads_share_the_links(host: LocalHost, links: HostLinks) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            data = random.Random(number).randbytes(200_000)
            piece = store(links, host, data)
            for _ in range(5):
                assert links.retrieve(host.address, piece, deadline_seconds=SECONDS) == data
            assert links.delete(host.address, [piece], TENANT) == 1
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert failures == []
    assert host.counts.snapshot() == {}
