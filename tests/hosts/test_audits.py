"""Audits of a real `layrfs host run` over TLS: its answers while all is well, and after somebody was at its disk."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from layrfs.crypto import challenges, merkle
from layrfs.errors import MissingPiece, TimedOut, Unreachable
from layrfs.ids import PieceId
from layrfs.model.records import HostAddress
from layrfs.network.links import HostLinks
from layrfs.storage.piece_file import HEAD_BYTES
from tests.hosts.processes import SECONDS, Child
from tests.hosts.test_host_run import address_of, command, first_host, links_to, store

SIZE = 1 << 20
LEAVES = SIZE // merkle.LEAF_BYTES
ABSENT = PieceId(bytes(32))
KINDS: tuple[challenges.AnswerKind, ...] = ("whole", "leaves")


class Audited(NamedTuple):
    """A running host and who asks it."""

    process: Child
    directory: Path
    address: HostAddress
    links: HostLinks

    def file_of(self, piece: PieceId) -> Path:
        return self.directory / "pieces" / piece.hex()[:2] / piece.hex()

    def prove(self, piece: PieceId, leaves: int = 1) -> None:
        self.links.prove(self.address, piece, SIZE, secrets.token_bytes(32), leaves, deadline_seconds=SECONDS)

    def answer(self, piece: PieceId, salt: bytes, kind: challenges.AnswerKind) -> bytes:
        return self.links.answer(self.address, piece, salt, kind, deadline_seconds=SECONDS)

    def prove_quickly(self, piece: PieceId) -> None:
        self.links.prove(self.address, piece, SIZE, bytes(32), 1, deadline_seconds=0.5)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    directory = tmp_path_factory.mktemp("audits") / "host"
    with first_host(directory) as process:
        process.says("ready")
        links = links_to(directory)
        yield Audited(process, directory, address_of(directory), links)
        links.close()


def test_a_host_meets_every_challenge_about_what_it_has(host: Audited) -> None:
    piece, salt = store(host.links, host.address, 1), secrets.token_bytes(32)
    data = random.Random(1).randbytes(SIZE)
    for leaves in (1, 7, 32):
        host.prove(piece, leaves)
    for kind in KINDS:
        assert host.answer(piece, salt, kind) == challenges.answer_digest(salt, piece, data, kind)
    status = json.loads(command("status", "--dir", str(host.directory), "--json").stdout)
    assert status["audits_answered"] >= 5
    assert "audits" in command("status", "--dir", str(host.directory)).stdout


def test_a_piece_that_never_was_is_missing_and_the_host_goes_on(host: Audited) -> None:
    for _ in range(3):
        with pytest.raises(MissingPiece):
            host.prove(ABSENT)
        for kind in KINDS:
            with pytest.raises(MissingPiece):
                host.answer(ABSENT, ABSENT, kind)
    host.prove(store(host.links, host.address, 2))


@pytest.mark.parametrize("seen_before", [False, True])
def test_a_piece_that_was_deleted_behind_its_back_is_missing(host: Audited, *, seen_before: bool) -> None:
    piece = store(host.links, host.address, 10 + seen_before)
    if seen_before:
        host.prove(piece)
    host.file_of(piece).unlink()
    with pytest.raises(MissingPiece):
        host.prove(piece)


@pytest.mark.parametrize("seen_before", [False, True])
def test_a_rotten_leaf_is_found_when_it_is_asked_for_and_the_piece_is_gone_from_then_on(
    host: Audited, *, seen_before: bool
) -> None:
    """The honest host of a bad disk: it knows the hashes of what it has seen, and does not give out what is rotten."""
    piece = store(host.links, host.address, 20 + seen_before)
    if seen_before:
        host.prove(piece)
    rotten = 5
    flip(host.file_of(piece), rotten * merkle.LEAF_BYTES)
    nonces = [number.to_bytes(32, "little") for number in range(1000)]
    asked = [challenges.chosen_leaves(nonce, piece, LEAVES, 8) for nonce in nonces]
    first = next(number for number, leaves in enumerate(asked) if rotten in leaves)
    for nonce in nonces[: first if seen_before else 0]:  # unread since it came, all of a piece is looked at
        host.links.prove(host.address, piece, SIZE, nonce, 8, deadline_seconds=SECONDS)
    with pytest.raises(MissingPiece):
        host.links.prove(host.address, piece, SIZE, nonces[first], 8, deadline_seconds=SECONDS)
    with pytest.raises(MissingPiece):
        host.prove(piece)
    assert (host.directory / "quarantine" / piece.hex()).exists()


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(HEAD_BYTES + place)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def test_a_host_that_stops_answering_is_too_slow_and_then_away(host: Audited) -> None:
    """Last, because the host does not survive it."""
    piece = store(host.links, host.address, 30)
    host.prove(piece)
    host.process.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, host.process.process.pid, os.WSTOPPED | os.WNOWAIT)
    with pytest.raises(TimedOut):
        host.prove_quickly(piece)
    with pytest.raises(Unreachable) as away:
        host.prove_quickly(piece)
    assert not isinstance(away.value, TimedOut), "nobody proves to be the host any more"
    host.process.process.send_signal(signal.SIGCONT)
    host.prove(piece)
    host.process.end(signal.SIGKILL)
    with pytest.raises(Unreachable):
        host.prove(piece)
