"""Every lie of tests/hosts/liars.py against the challenges that catch it, within the number of them that is promised.

The table of docs/reliability.md names these tests. Everything is asked over real TLS of a real host; the dice are those
of a fixed seed, so a bound that holds with 99 % probability holds here always or never.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from layrfs.crypto import merkle
from layrfs.crypto.challenges import NONCE_BYTES, answer_digest, chosen_leaves
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import LayrError, MissingPiece, RemoteError, TimedOut, WrongBytes
from layrfs.ids import PieceId, Salt
from layrfs.model.redundancy import DEFAULT_REDUNDANCY
from layrfs.network.links import HostLinks, HostRefused
from layrfs.pipeline.coding import Piece, make_pieces
from layrfs.pipeline.transfers import Slot
from layrfs.policy.auditing import LEAVES_PER_DAY, detection_probability, leaves_needed
from layrfs.policy.trust import NEW_HOST, Outcome, Standing, after, standing
from layrfs.upkeep.challenging import outcome_of
from tests.hosts.liars import LIES, ForgetsLater, OneOfThree, lying_host
from tests.hosts.local_host import NETWORK, SECONDS, SPACE_BYTES, LocalHost

LEAF_BYTES = merkle.LEAF_BYTES
TENANT = bytes([5]) * 32
DICE = random.Random(4)
DATA = [DICE.randbytes(64 * LEAF_BYTES - 100) for _ in range(8)]
PIECES = {merkle.piece_id(data): data for data in DATA}
LEAVES_FOR_99_PERCENT = 459
"""The least number of leaves of which, when 1 % of all are missing, one is missing with 99 % probability."""

SALT = bytes(range(32))


@pytest.fixture
def links() -> Iterator[HostLinks]:
    links = HostLinks(NodeIdentity.generate(), NETWORK)
    yield links
    links.close()


def filled(stack: ExitStack, links: HostLinks, directory: Path, lie: str) -> LocalHost:
    """A liar that has acknowledged all pieces."""
    host = stack.enter_context(lying_host(directory, lie))
    for piece, data in PIECES.items():
        links.store(host.address, piece, data, tenant_private=TENANT, deadline_seconds=SECONDS)
    return host


def prove(links: HostLinks, host: LocalHost, piece: PieceId, *, leaves: int = 1, seconds: float = SECONDS) -> None:
    size = len(PIECES[piece])
    links.prove(host.address, piece, size, DICE.randbytes(NONCE_BYTES), leaves, deadline_seconds=seconds)


def copies_of(sealed: bytes) -> list[Piece]:
    slots = [Slot(position, 0) for position in range(DEFAULT_REDUNDANCY.total)]
    return make_pieces(bytes(32), Salt(bytes(16)), DEFAULT_REDUNDANCY, slots, sealed)


def passes(links: HostLinks, host: LocalHost, piece: PieceId, *, leaves: int) -> bool:
    try:
        prove(links, host, piece, leaves=leaves)
    except WrongBytes:
        return False
    return True


AT_ONCE = {
    "hashes only": WrongBytes,
    "truncated": WrongBytes,
    "forgets": MissingPiece,
    "malformed proofs": WrongBytes,
    "out of range": WrongBytes,
    "too many leaves": WrongBytes,
    "garbage": WrongBytes,
}


@pytest.mark.parametrize("lie", AT_ONCE)
def test_caught_by_the_first_challenge_of_any_piece(links: HostLinks, tmp_path: Path, lie: str) -> None:
    with ExitStack() as stack:
        host = filled(stack, links, tmp_path, lie)
        for piece in PIECES:
            with pytest.raises(AT_ONCE[lie]):
                prove(links, host, piece)


FATES = [
    ("hashes only", "prove", 1, 3),
    ("stale", "prove", 1, 3),
    ("garbage", "prove", 1, 3),
    ("forgets", "prove", 9, 27),
    ("refuses retrieval", "deep", 10, None),
    ("nothing", "prove", None, None),
]
"""Lie, level, how many audits until it is suspended and until it is excluded."""


@pytest.mark.parametrize(("lie", "level", "suspended", "excluded"), FATES, ids=[fate[0] for fate in FATES])
def test_what_becomes_of_a_liar(
    links: HostLinks, tmp_path: Path, lie: str, level: str, suspended: int | None, excluded: int | None
) -> None:
    """One audit a minute, of one piece after the other."""
    ask = {"prove": prove, "deep": fetch}[level]
    trust, standings = NEW_HOST, list[Standing]()
    with ExitStack() as stack:
        host = filled(stack, links, tmp_path, lie)
        pieces = itertools.cycle(list(PIECES)[1:])  # a host with stale bytes has the first one
        for audit in range(1, 1 + (excluded or suspended or 30)):
            outcome = heard(lambda: ask(links, host, next(pieces)))
            trust = after(trust, outcome, 60.0 * audit, retrieval=level == "deep")
            standings.append(standing(trust, 60.0 * audit))
    assert first(standings, "suspended") == suspended
    assert first(standings, "excluded") == excluded


def fetch(links: HostLinks, host: LocalHost, piece: PieceId) -> None:
    links.retrieve(host.address, piece, deadline_seconds=SECONDS)


def heard(ask: Callable[[], None]) -> Outcome:
    try:
        ask()
    except LayrError as error:
        return outcome_of(error)
    return "passed"


def first(standings: list[Standing], wanted: Standing) -> int | None:
    return standings.index(wanted) + 1 if wanted in standings else None


def test_an_honest_host_is_never_caught(links: HostLinks, tmp_path: Path) -> None:
    with ExitStack() as stack:
        host = filled(stack, links, tmp_path, "nothing")
        for piece, leaves in itertools.product(PIECES, (1, 2, 32)):
            prove(links, host, piece, leaves=leaves)
            assert links.answer(host.address, piece, SALT, "leaves", deadline_seconds=SECONDS) == answer_digest(
                SALT, piece, PIECES[piece], "leaves"
            )


def test_stale_bytes_are_caught_by_the_first_challenge_of_each_newer_piece(links: HostLinks, tmp_path: Path) -> None:
    """Also where the old piece is as long: its tree is a true one, of another name."""
    with ExitStack() as stack:
        host = filled(stack, links, tmp_path, "stale")
        oldest, *newer = PIECES
        prove(links, host, oldest)
        for piece in newer:
            with pytest.raises(WrongBytes):
                prove(links, host, piece)
            with pytest.raises(WrongBytes):
                links.retrieve(host.address, piece, deadline_seconds=SECONDS)


def test_a_host_without_one_percent_of_its_leaves_is_caught_within_459(links: HostLinks, tmp_path: Path) -> None:
    with ExitStack() as stack:
        host = filled(stack, links, tmp_path, "99 percent")
        challenges = itertools.islice(itertools.cycle(PIECES), LEAVES_FOR_99_PERCENT // 8)
        assert not all(passes(links, host, piece, leaves=8) for piece in challenges)


def test_459_leaves_find_one_percent_with_99_percent_probability() -> None:
    """Exactly, and by drawing as audits draw: one leaf each of pieces of 256, of which 1 % are not there."""
    assert leaves_needed(0.01, 0.99) == LEAVES_FOR_99_PERCENT <= LEAVES_PER_DAY, "so it takes a day"
    assert detection_probability(0.01, LEAVES_FOR_99_PERCENT) >= 0.99
    dice, volumes = random.Random(6), 400
    found = 0
    for _ in range(volumes):
        pieces = [PieceId(dice.randbytes(32)) for _ in range(100)]
        missing = set(dice.sample([(piece, leaf) for piece in pieces for leaf in range(256)], 256))
        asked = ((piece, *chosen_leaves(dice.randbytes(32), piece, 256, 1)) for piece in dice.choices(pieces, k=459))
        found += any(leaf in missing for leaf in asked)
    assert found >= 390, "396 are expected, fewer than 390 once in 700 times"


def test_proofs_of_a_nonce_of_its_own_are_caught_by_the_first_challenge(links: HostLinks, tmp_path: Path) -> None:
    """Unless the leaves are by chance the same: one in 256 for one leaf of a whole piece, here 8 of 64."""
    with ExitStack() as stack:
        host = filled(stack, links, tmp_path, "other nonce")
        for piece in PIECES:
            with pytest.raises(WrongBytes):
                prove(links, host, piece, leaves=8)


def test_made_up_digests_are_caught_by_the_first_answer(links: HostLinks, tmp_path: Path) -> None:
    with ExitStack() as stack:
        host = filled(stack, links, tmp_path, "wrong digests")
        for piece, data in PIECES.items():
            prove(links, host, piece)
            digest = links.answer(host.address, piece, SALT, "leaves", deadline_seconds=SECONDS)
            assert digest != answer_digest(SALT, piece, data, "leaves")


def test_one_copy_of_three_fails_by_construction(links: HostLinks, tmp_path: Path) -> None:
    """Three hosts that are one keep one copy. No copy helps to prove another: masks leave them nothing in common."""
    store = OneOfThree(str(tmp_path), space_bytes=SPACE_BYTES)
    sealed = DICE.randbytes(64 * LEAF_BYTES)
    copies = copies_of(sealed)
    units = [{bytes(copy.data[at : at + 8]) for at in range(0, len(copy.data), 8)} for copy in copies]
    assert len(set.union(*units)) == sum(map(len, units)), "not 8 bytes in common"
    assert len({copy.id for copy in copies}) == 3
    with ExitStack() as stack:
        hosts = [stack.enter_context(lying_host(tmp_path, "one of three", store=store)) for _ in copies]
        passed = []
        for host, copy in zip(hosts, copies, strict=True):
            links.store(host.address, copy.id, copy.data, tenant_private=TENANT, deadline_seconds=SECONDS)
        for host, copy in zip(hosts, copies, strict=True):
            try:
                nonce = DICE.randbytes(NONCE_BYTES)
                links.prove(host.address, copy.id, len(sealed), nonce, 1, deadline_seconds=SECONDS)
            except WrongBytes:
                continue
            passed.append(host)
    assert len(passed) == 1, "the first challenge of each of the other two catches them"


def test_who_proves_and_does_not_give_is_caught_by_the_first_fetch(links: HostLinks, tmp_path: Path) -> None:
    with ExitStack() as stack:
        host = filled(stack, links, tmp_path, "refuses retrieval")
        for piece in PIECES:
            prove(links, host, piece, leaves=32)
            with pytest.raises(HostRefused):
                links.retrieve(host.address, piece, deadline_seconds=SECONDS)


def test_a_byte_now_and_then_is_too_late_for_every_challenge(links: HostLinks, tmp_path: Path) -> None:
    """Something always arrives, and it does not help: a proof is small, so its deadline is one for the whole."""
    with ExitStack() as stack:
        host = filled(stack, links, tmp_path, "byte by byte")
        for piece, data in itertools.islice(PIECES.items(), 2):
            links.store(host.address, piece, data, tenant_private=TENANT, deadline_seconds=SECONDS)  # on a connection
            with pytest.raises(TimedOut):
                prove(links, host, piece, seconds=0.3)


def test_a_month_later_the_first_challenge_finds_nothing(links: HostLinks, tmp_path: Path) -> None:
    clock = [0.0]
    with ExitStack() as stack:
        store = ForgetsLater(str(tmp_path), space_bytes=SPACE_BYTES, now=lambda: clock[0])
        host = stack.enter_context(lying_host(tmp_path, "forgets later", store=store))
        piece, data = next(iter(PIECES.items()))
        links.store(host.address, piece, data, tenant_private=TENANT, deadline_seconds=SECONDS)
        for day in range(30):
            clock[0] = day * 86400.0
            prove(links, host, piece)
        clock[0] = 30 * 86400.0
        with pytest.raises(MissingPiece):
            prove(links, host, piece)


def test_a_relay_with_another_copy_is_caught_at_once(
    links: HostLinks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another host has of the shard is other bytes under another name."""
    sealed = DICE.randbytes(64 * LEAF_BYTES)
    mine, others, _third = copies_of(sealed)
    with lying_host(tmp_path / "honest", "nothing") as honest, lying_host(tmp_path / "relay", "relays") as relay:
        links.store(honest.address, others.id, others.data, tenant_private=TENANT, deadline_seconds=SECONDS)
        relay_to(honest, monkeypatch)
        with pytest.raises(MissingPiece):
            links.prove(relay.address, mine.id, len(sealed), bytes(32), 1, deadline_seconds=SECONDS)


def test_a_relay_that_keeps_its_piece_elsewhere_is_caught_only_when_that_is_gone(
    links: HostLinks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The piece does exist, under its own name: no challenge can tell on whose disk it is."""
    piece, data = next(iter(PIECES.items()))
    with lying_host(tmp_path / "relay", "relays") as relay:
        with lying_host(tmp_path / "honest", "nothing") as honest:
            relay_to(honest, monkeypatch)
            links.store(relay.address, piece, data, tenant_private=TENANT, deadline_seconds=SECONDS)
            prove(links, relay, piece, leaves=32)
            assert links.retrieve(relay.address, piece, deadline_seconds=SECONDS) == data
        with pytest.raises(RemoteError):
            prove(links, relay, piece)


def relay_to(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    address = host.address
    monkeypatch.setenv("LIAR_ELSEWHERE", f"{address.node_id.hex()} {address.ip} {address.port}")


def test_no_lie_is_left_out() -> None:
    """A lie without a test here would be a sentence without a proof in the table."""
    tested = Path(__file__).read_text(encoding="utf-8")
    assert [lie for lie in LIES if f'"{lie}"' not in tested] == []
