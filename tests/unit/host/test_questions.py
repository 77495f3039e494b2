"""How often a host has the ledger asked for others: nobody uses up what somebody with a contract may ask for."""

from __future__ import annotations

import threading
from functools import partial

import msgspec
import pytest

from layrfs.errors import LocalError
from layrfs.host.questions import Questions, Said
from layrfs.network.piece_server import Limits
from layrfs.wire import contracts
from layrfs.wire.contracts import ContractRequest
from layrfs.wire.messages import Refused
from tests.unit.host.test_contract_handlers import COVER, REQUESTS

PROPOSE, OPENED, _COVER, DISCLOSE, SETTLE, STANDING = REQUESTS
LIMITS = Limits(questions=3, questions_per_address=2, questions_per_tenant=2, queue_seconds=5)
BUSY, NO = Refused("busy"), Refused("no funds")


def asked(
    questions: Questions, request: ContractRequest, said: Said, *, address: str = "here", has_contract: bool = True
) -> Said:
    return questions.answered(request, address, lambda: said, has_contract=has_contract)


def test_strangers_share_what_there_is_and_who_has_a_contract_has_its_own() -> None:
    questions = Questions(LIMITS)
    ask = partial(asked, questions, PROPOSE, contracts.Agreed(b""), has_contract=False)
    assert [ask(address=address) for address in ("here", "here", "here", "there", "elsewhere")] == [
        *(contracts.Agreed(b""),) * 2,
        BUSY,
        contracts.Agreed(b""),
        BUSY,
    ]
    assert asked(questions, PROPOSE, contracts.Agreed(b"")) == contracts.Agreed(b"")
    assert asked(questions, COVER, NO, has_contract=False) == NO, "nobody was asked for that"


@pytest.mark.parametrize("request_", [PROPOSE, OPENED, COVER, DISCLOSE])
def test_what_comes_to_nothing_is_counted_for_each_tenant_and_what_is_agreed_to_is_not(
    request_: ContractRequest,
) -> None:
    questions = Questions(LIMITS)
    assert [asked(questions, request_, contracts.Covered()) for _ in range(9)] == [contracts.Covered()] * 9
    assert [asked(questions, request_, NO) for _ in range(3)] == [NO, NO, BUSY]
    assert asked(questions, request_, contracts.Covered()) == BUSY
    other = msgspec.structs.replace(request_, tenant=bytes(32))
    assert asked(questions, other, contracts.Covered()) == contracts.Covered()
    assert asked(questions, STANDING, NO) == NO, "nobody is asked for that"


def test_ends_are_counted_that_are_agreed_to() -> None:
    questions, settled = Questions(LIMITS), contracts.Settled(bytes(64))
    assert [asked(questions, SETTLE, settled) for _ in range(3)] == [settled, settled, BUSY]


def test_what_fails_here_is_not_held_against_anybody() -> None:
    def away() -> Said:
        raise LocalError("the ledger is away")

    questions = Questions(LIMITS)
    for _ in range(5):
        with pytest.raises(LocalError):
            questions.answered(DISCLOSE, "here", away, has_contract=True)


def test_covers_of_one_tenant_take_turns() -> None:
    questions, inside, second = Questions(LIMITS), threading.Event(), threading.Event()
    go_on, order = threading.Event(), list[str]()

    def first_one() -> Said:
        inside.set()
        go_on.wait(5)
        order.append("first")
        return contracts.Covered()

    def second_one() -> Said:
        order.append("second")
        second.set()
        return contracts.Covered()

    threads = [
        threading.Thread(target=partial(questions.answered, COVER, "here", answer, has_contract=True))
        for answer in (first_one, second_one)
    ]
    threads[0].start()
    assert inside.wait(5)
    threads[1].start()
    assert not second.wait(0.1)
    go_on.set()
    for thread in threads:
        thread.join(5)
    assert order == ["first", "second"]
