"""Requests about delegations: only the volume itself is answered, and only by a host that wants to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage, LayrError, MissingPiece, NoSpace
from layrfs.host.handlers import HANDLERS, Call, Delegations, Host
from layrfs.network.piece_server import Answer, Visit
from layrfs.storage.root_store import RootStore
from layrfs.wire import delegation, messages
from layrfs.wire.delegation import DelegationRequest, DelegationResponse
from tests.fakes.pieces import MemoryPieces
from tests.unit.host.test_handlers import HOST, NETWORK, OWNER, REPORT

VOLUME = NodeIdentity(bytes([8]) * 32)
THIEF = NodeIdentity(bytes([4]) * 32)


class OneAnswer:
    """Delegations that always answer the same."""

    def __init__(self, answer: DelegationResponse | LayrError) -> None:
        self._answer = answer
        self.asked: list[DelegationRequest] = []

    def answer(self, request: DelegationRequest, body: memoryview) -> DelegationResponse:
        assert bytes(body) == b"body"
        self.asked.append(request)
        if isinstance(self._answer, LayrError):
            raise self._answer
        return self._answer


REQUESTS: list[DelegationRequest] = [
    delegation.Delegate(VOLUME.public_key, bytes(32), 1, 2, 3, bytes(64)),
    delegation.Entrust(VOLUME.public_key, 3, bytes(64)),
    delegation.GetPatches(VOLUME.public_key, bytes(32), bytes(64)),
    delegation.Revoke(VOLUME.public_key, bytes(64)),
]


def asked(
    directory: Path,
    delegations: Delegations | None,
    request: DelegationRequest,
    *,
    signer: NodeIdentity,
    number: int = 0,
) -> Answer:
    host = Host(HOST.node_id, NETWORK, MemoryPieces(1), RootStore(str(directory)), lambda: REPORT, delegations)
    visit = Visit(OWNER.node_id, "192.0.2.1")
    statement = delegation.delegation_statement(NETWORK, HOST.node_id, visit.challenge, number, request, b"body")
    request = msgspec.structs.replace(request, signature=signer.sign(statement))
    return HANDLERS[type(request)](Call(host, visit, request, memoryview(b"body")))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_the_volume_itself_is_answered(tmp_path: Path, request_: DelegationRequest) -> None:
    delegations = OneAnswer(delegation.Entrusted())
    assert asked(tmp_path, delegations, request_, signer=VOLUME) == Answer(delegation.Entrusted())
    assert len(delegations.asked) == 1


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_nobody_else_is(tmp_path: Path, request_: DelegationRequest) -> None:
    delegations = OneAnswer(delegation.Entrusted())
    for signer, number in ((THIEF, 0), (VOLUME, 1)):
        answer = asked(tmp_path, delegations, request_, signer=signer, number=number)
        assert answer == Answer(messages.Refused("not the owner"))
    assert delegations.asked == []


def test_a_host_that_was_not_asked_to_repairs_for_nobody(tmp_path: Path) -> None:
    answer = asked(tmp_path, None, REQUESTS[0], signer=VOLUME)
    assert answer == Answer(messages.Refused("not allowed"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MissingPiece(""), "missing"), (NoSpace(""), "full"), (BadMessage(""), "bad delegation")],
    ids=str,
)
def test_why_not_is_said_in_one_word(tmp_path: Path, error: LayrError, reason: messages.Reason) -> None:
    answer = asked(tmp_path, OneAnswer(error), REQUESTS[0], signer=VOLUME)
    assert answer == Answer(messages.Refused(reason))
