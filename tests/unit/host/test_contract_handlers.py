"""Requests about contracts: only the tenant itself is answered, and only by a host that has a price."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage
from layrfs.host.handlers import HANDLERS, Call, Contracts, Host
from layrfs.network.piece_server import Answer, Visit
from layrfs.storage.root_store import RootStore
from layrfs.wire import contracts, messages
from layrfs.wire.contracts import ContractRequest, ContractResponse
from tests.fakes.pieces import MemoryPieces
from tests.unit.host.test_handlers import HOST, NETWORK, OWNER, REPORT, TENANT, THIEF

QUOTED = contracts.Quoted(7, bytes(32), bytes(32), 2, 64, 1, 2, 0)


class OneAnswer:
    """Contracts that always answer the same; None: what was asked cannot be read."""

    def __init__(self, answer: ContractResponse | None) -> None:
        self._answer = answer
        self.asked: list[ContractRequest] = []

    def quote(self) -> contracts.Quoted:
        return QUOTED

    def answer(self, request: ContractRequest, body: memoryview) -> ContractResponse | messages.Refused:
        assert bytes(body) == b"body"
        self.asked.append(request)
        if self._answer is None:
            raise BadMessage("")
        return self._answer


KEY = TENANT.public_key
REQUESTS: list[ContractRequest] = [
    contracts.Propose(KEY, b"", bytes(64)),
    contracts.Opened(KEY, bytes(32), bytes(64)),
    contracts.Cover(KEY, bytes(32), 0, 0, 1, 2, (contracts.SignedLock(1, bytes(32), bytes(64)),), bytes(64)),
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
