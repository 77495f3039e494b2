"""Places for pieces in memory: how many, for whom, for how long one waits."""

from __future__ import annotations

import contextlib
import threading

from layrfs.host.admission import Admission, Quota
from layrfs.ids import NodeId

ANNA, BEN = NodeId(b"a" * 20), NodeId(b"b" * 20)


def test_one_peer_cannot_have_all_places() -> None:
    admission = Admission(total=3, per_peer=2, patience_seconds=0)
    with admission.place(ANNA) as first, admission.place(ANNA) as second, admission.place(ANNA) as third:
        assert (first, second, third) == (True, True, False)
        with admission.place(BEN) as other:
            assert other


def test_one_address_cannot_have_all_places_whatever_it_calls_itself() -> None:
    admission = Admission(total=3, per_peer=3, per_address=2, patience_seconds=0)
    with contextlib.ExitStack() as held:
        wanted = [(ANNA, "here"), (BEN, "here"), (NodeId(b"c" * 20), "here"), (ANNA, "there")]
        assert [held.enter_context(admission.place(*one)) for one in wanted] == [True, True, False, True]


def test_all_places_taken_is_busy_for_everybody() -> None:
    admission = Admission(total=1, per_peer=2, patience_seconds=0)
    with admission.place(ANNA), admission.place(BEN) as second:
        assert not second


def test_a_place_comes_back_however_the_request_ends() -> None:
    admission = Admission(total=1, per_peer=1, patience_seconds=0)
    for _ in range(3):
        with contextlib.suppress(KeyError), admission.place(ANNA) as admitted:
            assert admitted
            raise KeyError


def test_who_was_not_admitted_gives_nothing_back() -> None:
    admission = Admission(total=1, per_peer=1, patience_seconds=0)
    with admission.place(ANNA):
        with admission.place(BEN) as second:
            assert not second
        with admission.place(BEN) as third:
            assert not third


def test_waiting_ends_when_a_place_is_free() -> None:
    admission = Admission(total=1, per_peer=1, patience_seconds=30)
    outcome: list[bool] = []
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        with admission.place(BEN) as admitted:
            outcome.append(admitted)

    thread = threading.Thread(target=wait)
    with admission.place(ANNA):
        thread.start()
        assert waiting.wait(5)
        assert outcome == []
    thread.join(5)
    assert outcome == [True]


def test_peers_that_have_gone_leave_nothing_behind() -> None:
    admission = Admission(total=5, per_peer=5, patience_seconds=0)
    for number in range(100):
        with admission.place(NodeId(number.to_bytes(20, "big"))):
            pass
    assert len(admission._held) == 0


def test_one_address_cannot_use_up_what_there_is_in_a_minute_and_all_of_them_no_more_than_that() -> None:
    now = [0.0]
    quota = Quota(total=3, per_address=2, seconds=60, monotonic=lambda: now[0])
    assert [quota.take("anna") for _ in range(3)] == [True, True, False]
    now[0] = 30.0
    assert [quota.take("ben"), quota.take("ben")] == [True, False]
    now[0] = 60.0
    assert [quota.take("ben"), quota.take("anna"), quota.take("anna")] == [True, True, False]
