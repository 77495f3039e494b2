"""Requests and their answers, without a network: who may do what to which piece."""

from __future__ import annotations

import typing
from pathlib import Path

import msgspec
import pytest

from layrfs.crypto import challenges, merkle
from layrfs.crypto.identity import NodeIdentity
from layrfs.host.handlers import HANDLERS, Call, Host
from layrfs.ids import PieceId
from layrfs.model.root_record import RootRecord
from layrfs.network.piece_server import Answer, Visit
from layrfs.storage.root_store import RootStore
from layrfs.wire import messages
from layrfs.wire.messages import Request
from tests.fakes.pieces import MemoryPieces

NETWORK = bytes(range(32))
HOST = NodeIdentity(bytes([1]) * 32)
OWNER = NodeIdentity(bytes([2]) * 32)
TENANT = NodeIdentity(bytes([3]) * 32)
THIEF = NodeIdentity(bytes([4]) * 32)
DATA = bytes(range(256)) * 300
PIECE = merkle.piece_id(DATA)
START = PieceId(bytes(32))
REPORT = messages.StatusReport(1, 2, 3, 4, 5, 6, verifying=False, requests={}, dropped={}, started=0.0)


class OneHost:
    """A host with a store in memory, and one visit to it."""

    def __init__(self, directory: Path, visitor: NodeIdentity = OWNER) -> None:
        self.pieces = MemoryPieces(1 << 30)
        self.host = Host(HOST.node_id, NETWORK, self.pieces, RootStore(str(directory)), lambda: REPORT)
        self.visit = Visit(visitor.node_id, "192.0.2.1")

    def ask(self, request: Request, body: bytes = b"") -> Answer:
        return HANDLERS[type(request)](Call(self.host, self.visit, request, memoryview(body)))

    def store(self, tenant: NodeIdentity = TENANT) -> Answer:
        return self.ask(messages.Store(PIECE, tenant.public_key), DATA)

    def delete(self, *, signer: NodeIdentity = TENANT, number: int = 0, **changed: bytes) -> Answer:
        bound = {"network": NETWORK, "host": HOST.node_id, "challenge": self.visit.challenge} | changed
        statement = messages.delete_statement(**bound, number=number, pieces=(PIECE,))  # type: ignore[arg-type]
        return self.ask(messages.Delete((PIECE,), TENANT.public_key, signer.sign(statement)))

    def renew(self, *pieces: PieceId, signer: NodeIdentity = TENANT, number: int = 0) -> Answer:
        statement = messages.renew_statement(NETWORK, HOST.node_id, self.visit.challenge, number, pieces)
        return self.ask(messages.Renew(pieces, TENANT.public_key, signer.sign(statement)))

    def inventory(self, *, signer: NodeIdentity = TENANT, number: int = 0, **changed: bytes) -> Answer:
        bound = {"network": NETWORK, "host": HOST.node_id, "challenge": self.visit.challenge, "after": START} | changed
        statement = messages.inventory_statement(**bound, number=number)
        return self.ask(messages.Inventory(TENANT.public_key, signer.sign(statement), START))


@pytest.fixture
def host(tmp_path: Path) -> OneHost:
    return OneHost(tmp_path)


def refused(reason: messages.Reason) -> Answer:
    return Answer(messages.Refused(reason))


def test_every_request_has_a_handler() -> None:
    assert set(HANDLERS) == set(typing.get_args(Request))


def test_store_then_retrieve(host: OneHost) -> None:
    assert host.store() == Answer(messages.Stored())
    assert host.ask(messages.Retrieve(PIECE)) == Answer(messages.Retrieved(len(DATA)), DATA)
    assert host.ask(messages.Has((PIECE, PieceId(bytes(32))))) == Answer(messages.Held((True, False)))


def test_a_range_comes_with_its_proof(host: OneHost) -> None:
    host.store()
    answer = host.ask(messages.Retrieve(PIECE, 20_000, 10))
    assert isinstance(answer.header, messages.Retrieved)
    assert answer.header.first_leaf == 1
    assert merkle.verify(PIECE, len(DATA), 1, answer.body, answer.header.proof)


@pytest.mark.parametrize("leaves", [1, 3, 5, 32])
def test_a_challenge_is_met_with_the_leaves_that_its_nonce_chooses(host: OneHost, leaves: int) -> None:
    host.store()
    answer = host.ask(messages.Prove(PIECE, NETWORK, leaves))
    assert isinstance(answer.header, messages.Proven)
    assert answer.header.piece_bytes == len(DATA)
    chosen = challenges.chosen_leaves(NETWORK, PIECE, 5, leaves)
    assert challenges.are_proven(PIECE, len(DATA), chosen, answer.body, answer.header.proofs)


@pytest.mark.parametrize("kind", ["whole", "leaves"])
def test_an_answer_is_the_digest_that_the_owner_knows(host: OneHost, kind: challenges.AnswerKind) -> None:
    host.store()
    digest = challenges.answer_digest(NETWORK, PIECE, DATA, kind)
    assert host.ask(messages.Answer(PIECE, NETWORK, kind)) == Answer(messages.Answered(digest))


ABOUT_THE_PIECE = [
    messages.Retrieve(PIECE),
    messages.Retrieve(PIECE, 5, 5),
    messages.Prove(PIECE, NETWORK),
    messages.Answer(PIECE, NETWORK),
    messages.Answer(PIECE, NETWORK, "whole"),
]


@pytest.mark.parametrize("request_", ABOUT_THE_PIECE)
def test_what_is_not_here_is_missing(host: OneHost, request_: Request) -> None:
    assert host.ask(request_) == refused("missing")


def test_other_bytes_under_the_name_are_refused(host: OneHost) -> None:
    assert host.ask(messages.Store(PIECE, TENANT.public_key), DATA[:-1]) == refused("wrong piece")
    assert host.pieces.kept == {}


def test_a_piece_cannot_be_taken_over_by_storing_it_again(host: OneHost) -> None:
    host.store()
    assert host.store(THIEF) == refused("not the owner")


def test_delete_by_the_owner(host: OneHost) -> None:
    host.store()
    assert host.delete() == Answer(messages.Deleted(1))
    assert host.delete(number=1) == Answer(messages.Deleted(0))


def test_delete_signed_by_somebody_else(host: OneHost) -> None:
    host.store()
    assert host.delete(signer=THIEF) == refused("not the owner")
    assert host.pieces.has(PIECE)


def test_delete_with_another_tenants_key_leaves_the_piece(host: OneHost) -> None:
    host.store(THIEF)
    assert host.delete() == Answer(messages.Deleted(0))
    assert host.pieces.has(PIECE)


@pytest.mark.parametrize("changed", [{"network": bytes(32)}, {"host": OWNER.node_id}, {"challenge": bytes(32)}])
def test_a_delete_meant_for_elsewhere_is_worthless_here(host: OneHost, changed: dict[str, bytes]) -> None:
    host.store()
    assert host.delete(**changed) == refused("not the owner")
    assert host.pieces.has(PIECE)


def test_a_delete_cannot_be_replayed_after_the_piece_was_stored_again(host: OneHost) -> None:
    host.store()
    assert host.delete(number=0) == Answer(messages.Deleted(1))
    host.store()
    assert host.delete(number=0) == refused("not the owner")
    assert host.pieces.has(PIECE)
    assert host.delete(number=2) == Answer(messages.Deleted(1))


def test_a_delete_is_worthless_on_another_connection(host: OneHost) -> None:
    host.store()
    elsewhere = Visit(OWNER.node_id, "192.0.2.1").challenge
    assert host.delete(challenge=elsewhere) == refused("not the owner")


def test_renewing_tells_what_is_here_and_needs_the_owner(host: OneHost) -> None:
    host.store()
    assert host.renew(PIECE, PieceId(bytes(32))) == Answer(messages.Renewed((True, False)))
    assert host.renew(PIECE, signer=THIEF, number=1) == refused("not the owner")
    assert host.renew(PIECE, number=1) == refused("not the owner"), "a signature is good for one time"
    assert host.delete(signer=TENANT, number=3) == Answer(messages.Deleted(1))
    assert host.renew(PIECE, number=4) == Answer(messages.Renewed((False,)))


def test_a_signature_to_renew_does_not_delete(host: OneHost) -> None:
    host.store()
    statement = messages.renew_statement(NETWORK, HOST.node_id, host.visit.challenge, 0, (PIECE,))
    assert host.ask(messages.Delete((PIECE,), TENANT.public_key, TENANT.sign(statement))) == refused("not the owner")
    assert host.pieces.has(PIECE)


def test_the_inventory_is_for_the_tenant_alone(host: OneHost) -> None:
    host.ask(messages.Store(PIECE, TENANT.public_key, b"note"), DATA)
    other = b"another tenant's"
    host.ask(messages.Store(merkle.piece_id(other), THIEF.public_key, b"theirs"), other)
    listing = Answer(messages.Listing((messages.Listed(PIECE, 0, b"note"),)))
    assert host.inventory() == listing
    assert host.inventory(number=1) == listing
    assert host.inventory(number=1) == refused("not the owner"), "a signature is good once"
    assert host.inventory(signer=THIEF, number=3) == refused("not the owner")


@pytest.mark.parametrize(
    "changed",
    [{"network": bytes(32)}, {"host": OWNER.node_id}, {"challenge": bytes(32)}, {"after": PIECE}],
)
def test_an_inventory_asked_elsewhere_is_worthless_here(host: OneHost, changed: dict[str, bytes]) -> None:
    host.store()
    assert host.inventory(**changed) == refused("not the owner")


def test_a_signature_to_delete_lists_nothing(host: OneHost) -> None:
    statement = messages.delete_statement(NETWORK, HOST.node_id, host.visit.challenge, 0, (PIECE,))
    request = messages.Inventory(TENANT.public_key, TENANT.sign(statement), PIECE)
    assert host.ask(request) == refused("not the owner")


def test_status_is_for_the_host_itself(tmp_path: Path) -> None:
    assert OneHost(tmp_path, visitor=HOST).ask(messages.Status()) == Answer(REPORT)
    assert OneHost(tmp_path, visitor=OWNER).ask(messages.Status()) == refused("not allowed")


def test_a_root_record_is_kept_and_never_goes_back(host: OneHost) -> None:
    old, new = (RootRecord.sign(bytes(32), version=version, time_ms=1, body=b"sealed") for version in (1, 2))
    assert host.ask(messages.GetRoot(new.volume)) == refused("missing")
    assert host.ask(messages.PutRoot(), new.to_bytes()) == Answer(messages.RootKept())
    assert host.ask(messages.PutRoot(), old.to_bytes()) == refused("stale")
    assert host.ask(messages.PutRoot(), new.to_bytes()[:-1] + b"?") == refused("bad root")
    assert host.ask(messages.GetRoot(new.volume)) == Answer(messages.RootFound(), new.to_bytes())


def test_a_host_with_records_enough_takes_no_other_volumes(tmp_path: Path) -> None:
    host = OneHost(tmp_path)
    known, other = (RootRecord.sign(bytes([key]) * 32, version=1, time_ms=1, body=b"") for key in (1, 2))
    full = Host(HOST.node_id, NETWORK, host.pieces, RootStore(str(tmp_path), most=1), lambda: REPORT)
    host.host = full
    assert host.ask(messages.PutRoot(), known.to_bytes()) == Answer(messages.RootKept())
    assert host.ask(messages.PutRoot(), other.to_bytes()) == refused("full")
    assert host.ask(messages.PutRoot(), known.to_bytes()) == Answer(messages.RootKept())
    assert host.ask(messages.PutRoot()) == refused("bad root"), "a request without its body"


def test_what_a_store_request_makes_a_host_keep(host: OneHost) -> None:
    host.store()
    assert host.pieces.kept == {PIECE: (TENANT.public_key, DATA)}
    assert set(msgspec.structs.asdict(messages.Store(PIECE, TENANT.public_key))) == {"piece", "tenant", "note"}
