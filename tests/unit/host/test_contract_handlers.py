"""Requests about contracts: only the tenant itself is answered, and only by a host that has a price."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage
from layrfs.host.handlers import HANDLERS, Call, Contracts, Host
from layrfs.ids import PieceId
from layrfs.network.piece_server import Answer, Visit
from layrfs.storage.root_store import RootStore
from layrfs.wire import contracts, messages
from layrfs.wire.contracts import ContractRequest, ContractResponse
from tests.fakes.pieces import MemoryPieces
from tests.unit.host.test_handlers import DATA, HOST, NETWORK, OWNER, PIECE, REPORT, TENANT, THIEF, OneHost

QUOTED = contracts.Quoted(7, bytes(32), bytes(32), 2, 64, 1, 2, 0)


class OneAnswer:
    """Contracts that always answer the same; None: what was asked cannot be read. One piece is covered."""

    def __init__(self, answer: ContractResponse | None, *, covered: PieceId | None = None, served: bool = True) -> None:
        self._answer = answer
        self._covered = covered
        self._served = served
        self.asked: list[ContractRequest] = []
        self.told: list[object] = []

    def quote(self) -> contracts.Quoted:
        return QUOTED

    def answer(self, request: ContractRequest, body: memoryview) -> ContractResponse | messages.Refused:
        assert bytes(body) == b"body"
        self.asked.append(request)
        if self._answer is None:
            raise BadMessage("")
        return self._answer

    @contextlib.contextmanager
    def room(self, tenant: bytes, _piece_bytes: int) -> Iterator[messages.Reason | None]:
        yield None if tenant == TENANT.public_key else "no contract"

    def stored(self, piece: PieceId, tenant: bytes, piece_bytes: int) -> None:
        self.told.append((piece, tenant, piece_bytes))

    def has_contract(self, tenant: bytes) -> bool:
        return tenant == TENANT.public_key and self._served

    def serves(self, _piece: PieceId) -> bool:
        return self._served

    @contextlib.contextmanager
    def deleting(self, tenant: bytes, pieces: Sequence[PieceId]) -> Iterator[list[PieceId]]:
        free = [piece for piece in pieces if piece != self._covered]
        yield free
        self.told.append((tenant, free))

    def leave(self) -> contracts.Leaving:
        return contracts.Leaving(3, 4)

    def report(self) -> contracts.EarningReport:
        raise AssertionError


KEY = TENANT.public_key
COVER = contracts.Cover(KEY, bytes(32), 0, 0, 1, 2, (contracts.SignedLock(1, bytes(32), bytes(64)),), bytes(64))
REQUESTS: list[ContractRequest] = [
    contracts.Propose(KEY, b"", bytes(64)),
    contracts.Opened(KEY, bytes(32), bytes(64)),
    COVER,
    contracts.Disclose(KEY, bytes(32), 0, bytes(32), bytes(64)),
    contracts.Settle(KEY, bytes(32), 1, 2, 3, bytes(64)),
    contracts.Standing(KEY, 0, bytes(64)),
]


def host_with(directory: Path, found: Contracts | None) -> Host:
    roots = RootStore(str(directory))
    return Host(HOST.node_id, NETWORK, MemoryPieces(1), roots, lambda: REPORT, contracts=found)


def asked(
    directory: Path, found: Contracts | None, request: ContractRequest, *, signer: NodeIdentity, number: int = 0
) -> Answer:
    host, visit = host_with(directory, found), Visit(OWNER.node_id, "192.0.2.1")
    statement = contracts.contract_statement(NETWORK, HOST.node_id, visit.challenge, number, request, b"body")
    request = msgspec.structs.replace(request, signature=signer.sign(statement))
    return HANDLERS[type(request)](Call(host, visit, request, memoryview(b"body")))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_the_tenant_itself_is_answered_and_nobody_else(tmp_path: Path, request_: ContractRequest) -> None:
    found = OneAnswer(contracts.Covered())
    for signer, number in ((THIEF, 0), (TENANT, 1)):
        answer = asked(tmp_path, found, request_, signer=signer, number=number)
        assert answer == Answer(messages.Refused("not the owner"))
    assert found.asked == []
    assert asked(tmp_path, found, request_, signer=TENANT) == Answer(contracts.Covered())
    assert len(found.asked) == 1


def test_a_free_host_has_neither_a_price_nor_contracts(tmp_path: Path) -> None:
    assert asked(tmp_path, None, REQUESTS[0], signer=TENANT) == Answer(messages.Refused("not allowed"))
    for found, expected in ((None, messages.Refused("not allowed")), (OneAnswer(None), QUOTED)):
        call = Call(host_with(tmp_path, found), Visit(OWNER.node_id, ""), contracts.Quote(), memoryview(b""))
        assert HANDLERS[contracts.Quote](call) == Answer(expected)


def test_what_cannot_be_read_is_bad_terms(tmp_path: Path) -> None:
    assert asked(tmp_path, OneAnswer(None), REQUESTS[0], signer=TENANT) == Answer(messages.Refused("bad terms"))


def priced(directory: Path, found: OneAnswer) -> OneHost:
    host = OneHost(directory)
    host.host = msgspec.structs.replace(host.host, contracts=found)
    return host


def test_what_was_stored_is_told_and_what_a_contract_needs_is_not_deleted(tmp_path: Path) -> None:
    found = OneAnswer(None, covered=PIECE)
    host = priced(tmp_path, found)
    assert host.store() == Answer(messages.Stored())
    assert host.delete() == Answer(messages.Deleted(0))
    assert host.ask(messages.Has((PIECE,))) == Answer(messages.Held((True,)))
    free = priced(tmp_path, OneAnswer(None))
    free.store()
    assert free.delete() == Answer(messages.Deleted(1))
    assert found.told == [(PIECE, TENANT.public_key, len(DATA)), (TENANT.public_key, [])]


def test_who_has_no_contract_is_neither_renewed_nor_served(tmp_path: Path) -> None:
    host = priced(tmp_path, OneAnswer(None, served=False))
    host.store()
    assert host.renew(PIECE) == Answer(messages.Refused("no contract"))
    assert host.ask(messages.Retrieve(PIECE)) == Answer(messages.Refused("no contract"))
    served = priced(tmp_path, OneAnswer(None))
    served.store()
    assert served.renew(PIECE) == Answer(messages.Renewed((True,)))
    assert isinstance(served.ask(messages.Retrieve(PIECE)).header, messages.Retrieved)


def test_only_the_host_itself_can_make_it_leave(tmp_path: Path) -> None:
    host = host_with(tmp_path, OneAnswer(None))
    for visitor, expected in ((OWNER, messages.Refused("not allowed")), (HOST, contracts.Leaving(3, 4))):
        call = Call(host, Visit(visitor.node_id, ""), contracts.Leave(), memoryview(b""))
        assert HANDLERS[contracts.Leave](call) == Answer(expected)
