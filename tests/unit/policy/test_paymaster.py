"""What is due in a contract, at moments and over whole lives with failures at every step."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto.instalments import answer, lock_hash
from layrfs.policy.contracts import InstalmentState, OwnerState, instalment_after, owner_after
from layrfs.policy.paymaster import (
    FEWEST_BYTES,
    FIRST_BYTES,
    Batch,
    Contract,
    Instalment,
    Step,
    Uncovered,
    amounts,
    cost_of,
    deposit,
    first_open,
    has_credit,
    lock,
    next_number,
    out_of_reach,
    paid_until,
    quiet_for,
    steps,
    top_up,
    unclaimed,
    waits,
)
from layrfs.policy.pricing import PRICED_SECONDS, credit_bytes, deposit_for, due_stroops
from layrfs.wire.contracts import BATCHES_LIMIT
from tests.contract_terms import TERMS

GIB = 1 << 30
TERMS_NOW = msgspec.structs.replace(
    TERMS, price=2 * 10**7, deposit_stroops=deposit_for(2 * 10**7, 16 * GIB, TERMS.instalments, TERMS.window_seconds)
)
WINDOW = TERMS.window_seconds
NEW = Contract(1, TERMS_NOW, "open", (), (Instalment(),) * TERMS.instalments)


def batch(number: int, first: int, at: int = TERMS.start, stored_bytes: int = GIB) -> Batch:
    digests = tuple(bytes([number, instalment]) * 16 for instalment in range(first, TERMS.instalments))
    return Batch(number, first, at, stored_bytes, digests, covered=True)


def due(contract: Contract, uncovered: Uncovered, now: float, *, renewed: bool = False) -> list[str]:
    found = steps(contract, uncovered, now, is_renewed=renewed, is_wanted=True)
    return [f"{step.kind} {step.instalment}" if step.instalment else step.kind for step in found]


def test_a_quiet_contract_is_covered_and_then_pays_for_the_upload() -> None:
    now = TERMS.start + 10
    assert due(NEW, Uncovered(3, GIB, 0.0), now) == []
    assert due(NEW, Uncovered(3, GIB, WINDOW), now) == ["cover"]
    covered = msgspec.structs.replace(NEW, batches=(batch(0, 0),))
    assert due(covered, Uncovered(0, 0, 0.0), now) == [], "more may come"
    assert due(covered, Uncovered(0, 0, WINDOW), now) == ["disclose"]
    assert due(covered, Uncovered(1, 1, 0.0), TERMS.start + WINDOW // 2) == ["disclose"], "that takes too long"


def test_much_is_covered_at_once() -> None:
    assert due(NEW, Uncovered(3, credit_bytes(TERMS_NOW) // 2 + 1, 0.0), TERMS.start + 10) == ["cover"]


def test_little_waits_after_a_cover_unless_a_contract_is_to_end() -> None:
    covered = msgspec.structs.replace(NEW, batches=(batch(0, 0),))
    now, little = TERMS.start + WINDOW / 4, credit_bytes(TERMS_NOW) // 64 - 1

    def is_covered(stored_bytes: int, seconds: float, *, waited_for: bool = False, empty: bool = False) -> bool:
        there = Uncovered(1, stored_bytes, 600.0, covered_seconds=seconds, is_waited_for=waited_for)
        return Step("cover") in steps(covered, there, now, is_renewed=False, is_wanted=True, is_empty=empty)

    assert not is_covered(little, WINDOW / 8 - 1)
    assert is_covered(little, WINDOW / 8)
    assert is_covered(little + 2, 601.0)
    assert is_covered(little, 601.0, empty=True)
    assert is_covered(little, 599.0), "it was there before"
    assert not is_covered(little, WINDOW / 32 - 1, waited_for=True)
    assert is_covered(little, WINDOW / 32, waited_for=True)


def test_each_window_asks_for_its_instalment_once_it_is_surely_open() -> None:
    paid = (Instalment("claimed", 1), *NEW.instalments[1:])
    running = msgspec.structs.replace(NEW, batches=(batch(0, 0),), instalments=paid)
    for instalment in range(1, TERMS.instalments):
        opens = TERMS.start + instalment * WINDOW
        before = [f"watch {earlier}" for earlier in range(1, instalment)]
        assert due(running, Uncovered(), opens, renewed=True) == before
        assert due(running, Uncovered(), opens + WINDOW // 8, renewed=True) == [*before, f"disclose {instalment}"]


def test_what_comes_in_the_last_window_needs_another_contract() -> None:
    last = TERMS.end - WINDOW // 4
    running = msgspec.structs.replace(
        NEW, instalments=(*(Instalment("claimed") for _ in NEW.instalments[1:]), Instalment())
    )
    assert first_open(running, last) == TERMS.instalments - 1
    assert first_open(running, TERMS.end - WINDOW // 16) is None
    assert due(running, Uncovered(), last) == ["renew"]
    assert due(running, Uncovered(), last, renewed=True) == []


def test_a_batch_never_counts_for_what_is_disclosed() -> None:
    disclosed = msgspec.structs.replace(NEW, instalments=(Instalment("disclosed"), *NEW.instalments[1:]))
    assert first_open(NEW, TERMS.start) == 0
    assert first_open(disclosed, TERMS.start) == 1
    assert first_open(NEW, TERMS.start + WINDOW - 1) == 1, "too late for the host to answer"
    assert first_open(msgspec.structs.replace(NEW, whole=False), TERMS.start) is None


def test_a_salt_waits_for_a_cover_that_fails_while_there_is_time_to_claim() -> None:
    opens, last = TERMS.window(2)
    assert waits(Step("disclose", 2), TERMS, opens)
    assert waits(Step("disclose", 2), TERMS, last - TERMS.window_seconds * 0.3)
    assert not waits(Step("disclose", 2), TERMS, last - TERMS.window_seconds * 0.2)
    assert waits(Step("cover"), TERMS, last)
    assert waits(Step("end"), TERMS, TERMS.end)
    assert not waits(Step("watch", 1), TERMS, last)


def test_a_contract_runs_out_of_batches_slowly_and_then_another_is_made() -> None:
    few = msgspec.structs.replace(NEW, batches=(batch(0, 0),) * (BATCHES_LIMIT // 2 - 1))
    many = msgspec.structs.replace(NEW, batches=(batch(0, 0),) * (BATCHES_LIMIT - 4))
    now, quiet = TERMS.start + 10.0, Uncovered(3, GIB, 900.0)
    assert due(few, quiet, now)[:1] == ["cover"]
    assert due(many, quiet, now) == []
    assert quiet_for(many, now) * 4 == TERMS.end - now
    full = msgspec.structs.replace(NEW, batches=(batch(0, 0),) * BATCHES_LIMIT)
    assert first_open(full, now) is None
    assert due(full, quiet, now) == ["renew"]


def test_what_is_late_for_a_window_is_covered_once_before() -> None:
    late = TERMS.start + WINDOW - WINDOW // 8
    assert due(NEW, Uncovered(1, 1, 0.0), late - 1)[:1] == ["cover"]
    assert "cover" not in due(NEW, Uncovered(1, 1, 0.0), late + 1)


def test_set_ups_are_looked_for_and_what_is_over_is_refunded() -> None:
    for state, expected in (
        ("agreed", ["look"]),
        ("submitted", ["look"]),
        ("ended", ["watch", "watch 1", "watch 2", "watch 3", "refund"]),
        ("merged", []),
        ("void", []),
    ):
        contract = msgspec.structs.replace(NEW, state=msgspec.convert(state, OwnerState))
        assert due(contract, Uncovered(5, GIB, WINDOW), TERMS.end + 1) == expected


def test_a_host_that_broke_the_contract_gets_nothing_more() -> None:
    broken = msgspec.structs.replace(NEW, state="broken", batches=(batch(0, 0),))
    assert due(broken, Uncovered(5, GIB, WINDOW), TERMS.start + WINDOW // 2) == []
    assert due(broken, Uncovered(), TERMS.end) == ["watch", "watch 1", "watch 2", "watch 3", "end"]


LAST = TERMS.instalments - 1
PAID = msgspec.structs.replace(
    NEW,
    batches=(batch(0, 0),),
    instalments=(Instalment("missed"), *(Instalment("claimed", 1) for _ in NEW.instalments[1:])),
)
"""All of it is paid for, in the last window."""


def test_what_a_later_contract_covers_ends_early_when_nothing_of_it_is_open() -> None:
    now = TERMS.window(LAST)[0] + WINDOW * 0.6

    def found(contract: Contract, *, on: bool = True, waiting: int = 0, at: float = now) -> list[str]:
        uncovered = Uncovered(waiting, waiting, 0.0)
        handed = steps(contract, uncovered, at, is_renewed=True, is_wanted=True, is_handed_on=on)
        return [step.kind for step in handed]

    assert found(PAID) == ["settle"]
    assert found(PAID, on=False) == []
    assert found(PAID, waiting=1) == []
    assert found(PAID, at=TERMS.end - 1) == [], "so late the refund comes as soon"
    told = msgspec.structs.replace(PAID, instalments=(*PAID.instalments[:-1], Instalment("disclosed")))
    assert found(told) == ["watch", "disclose"]
    unpaid = msgspec.structs.replace(PAID, instalments=(*PAID.instalments[:-1], Instalment()))
    assert found(unpaid, on=False) == ["disclose"]
    assert found(unpaid) == ["settle"], "the end pays what is due, and nothing is paid twice"
    assert found(msgspec.structs.replace(PAID, state="settling")) == ["settled", "settle"]
    assert found(msgspec.structs.replace(PAID, whole=False)) == []
    unsure = msgspec.structs.replace(PAID, batches=(msgspec.structs.replace(batch(0, 0), covered=False),))
    assert found(unsure) == ["cover again"]


def test_what_is_paid_for_until_a_window_ends_may_be_covered_from_then_on_by_another() -> None:
    ends = [TERMS.window(at)[1] + 1 for at in range(TERMS.instalments)]
    opens = [TERMS.window(at)[0] for at in range(TERMS.instalments)]
    assert [paid_until(PAID, now) for now in opens] == [None, *ends[1:]]
    assert paid_until(PAID, TERMS.end) is None
    later = msgspec.structs.replace(PAID, batches=(batch(0, 0), batch(1, 2)))
    assert [paid_until(later, now) for now in opens] == [None, None, *ends[2:]]
    assert paid_until(NEW, opens[1]) is None
    assert paid_until(msgspec.structs.replace(PAID, whole=False), opens[1]) is None
    assert paid_until(msgspec.structs.replace(PAID, state="broken"), opens[1]) is None


states = st.sampled_from(["waiting", "disclosed", "claimed", "missed"])


@given(
    st.lists(states, min_size=TERMS.instalments, max_size=TERMS.instalments),
    st.lists(st.tuples(st.integers(0, LAST), st.booleans()), max_size=3),
    st.sampled_from(["open", "settling", "broken"]),
    st.integers(0, TERMS.instalments * WINDOW),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1),
)
def test_a_contract_ends_early_only_when_nothing_that_is_needed_is_in_it_alone_and_no_claim_is_open(
    known: list[InstalmentState],
    batches: list[tuple[int, bool]],
    state: OwnerState,
    seconds: int,
    is_empty: bool,
    is_handed_on: bool,
    waiting: int,
) -> None:
    made = tuple(msgspec.structs.replace(batch(at, first), covered=is_) for at, (first, is_) in enumerate(batches))
    contract = msgspec.structs.replace(
        NEW, state=state, batches=made, instalments=tuple(Instalment(one) for one in known)
    )
    now, uncovered = TERMS.start + seconds, Uncovered(waiting, waiting, WINDOW)
    found = steps(
        contract, uncovered, now, is_renewed=True, is_wanted=True, is_empty=is_empty, is_handed_on=is_handed_on
    )
    kinds = [step.kind for step in found]
    if "settle" in kinds:
        assert is_empty or is_handed_on
        assert not waiting
        assert state != "broken"
        assert "disclosed" not in known
        assert all(one.covered for one in made)
        assert now < TERMS.end
    if is_handed_on:
        assert all(known[step.instalment] == "disclosed" for step in found if step.kind == "disclose")
    if "settle" not in kinds and not is_handed_on and state == "open":
        plain = steps(contract, uncovered, now, is_renewed=True, is_wanted=True)
        assert found == plain, "as if there were no ends by consent"


def test_locks_are_what_the_host_makes_of_the_same_batches() -> None:
    batches = (batch(0, 0), batch(1, 2))
    salt = b"s" * 32
    second = lock(TERMS_NOW, batches, 1, salt)
    assert second.hash == lock_hash(answer(salt, TERMS_NOW.contract_id, 1, [batches[0].digests[1]]))
    third = lock(TERMS_NOW, batches, 2, salt)
    assert third.hash == lock_hash(
        answer(salt, TERMS_NOW.contract_id, 2, [batches[0].digests[2], batches[1].digests[0]])
    )
    assert third.amount_stroops > second.amount_stroops == amounts(TERMS_NOW, batches)[1]


@given(st.integers(1, 10**12), st.one_of(st.none(), st.integers(0, 10**12)))
def test_a_deposit_is_within_the_budget(price: int, left: int | None) -> None:
    stroops = deposit(price, left_per_month=left, instalments=4, window_seconds=PRICED_SECONDS // 4)
    if left is None:
        assert stroops is not None
    elif stroops is None:
        assert left < due_stroops(price, FEWEST_BYTES, PRICED_SECONDS) + 1
    else:
        assert stroops <= left + 4, "rounded up to whole stroops, for a month"
        assert stroops <= deposit_for(price, FIRST_BYTES, 4, PRICED_SECONDS // 4)


@given(st.integers(0, 10**10), st.integers(0, 10**10))
def test_a_top_up_is_enough_and_no_more_often_than_needed(wanted: int, free: int) -> None:
    added = top_up(wanted, free, TERMS_NOW)
    assert free + added >= wanted
    assert (added == 0) == (free >= wanted)
    assert added == 0 or added >= TERMS_NOW.deposit_stroops


def test_numbers_are_never_used_twice() -> None:
    assert [next_number(used) for used in ([], [0], [0, 7, 3])] == [0, 1, 8]


class Moment(NamedTuple):
    """What happens between one pass and the next."""

    seconds: int
    stored_bytes: int
    host_works: bool
    ledger_works: bool


moments = st.builds(
    Moment, st.integers(0, WINDOW), st.sampled_from([0, 0, 1, GIB, 7 * GIB]), st.booleans(), st.booleans()
)


class Life:
    """A contract, its host and its escrow; every step works or not, as the moment says."""

    def __init__(self) -> None:
        self.now = TERMS.start
        self.contract = NEW
        self.waiting = 0
        self.quiet_since = self.now
        self.disclosed: dict[int, int] = {}
        self.claimed: dict[int, int] = {}

    def live(self, moment: Moment) -> None:
        self.now += moment.seconds
        wanted = self.waiting + moment.stored_bytes
        takes = has_credit(self.contract, wanted) and cost_of(self.contract, wanted, self.now) is not None
        if moment.stored_bytes and takes:
            self.waiting, self.quiet_since = wanted, self.now
        uncovered = Uncovered(int(self.waiting > 0), self.waiting, self.now - self.quiet_since)
        for step in steps(self.contract, uncovered, self.now, is_renewed=False, is_wanted=True):
            works = moment.ledger_works if step.kind in {"watch", "refund"} else moment.host_works
            if not works and step.kind != "end":
                break
            self.do(step)

    def do(self, step: Step) -> None:
        if step.kind == "cover":
            first = first_open(self.contract, self.now)
            assert first is not None
            added = batch(len(self.contract.batches), first, self.now, self.waiting)
            self.contract = msgspec.structs.replace(self.contract, batches=(*self.contract.batches, added))
            self.waiting = 0
        elif step.kind == "watch":
            self.watch(step.instalment)
        elif step.kind == "disclose" and self.contract.instalments[step.instalment].state in {"waiting", "disclosed"}:
            self.disclose(step.instalment)
        elif step.kind == "end":
            self.contract = msgspec.structs.replace(
                self.contract, state=owner_after(self.contract.state, "period over")
            )
        elif step.kind == "refund":
            assert self.now >= TERMS.end
            self.contract = msgspec.structs.replace(self.contract, state=owner_after(self.contract.state, "merged"))

    def disclose(self, instalment: int) -> None:
        first, last = TERMS.window(instalment)
        assert first <= self.now <= last
        assert self.contract.state == "open"
        amount = amounts(TERMS_NOW, self.contract.batches)[instalment]
        assert self.disclosed.setdefault(instalment, amount) == amount, "nothing changes once a salt is known"
        self.claimed[instalment] = amount
        self.set(instalment, Instalment(instalment_after("waiting", "disclosed")))

    def watch(self, instalment: int) -> None:
        state = self.contract.instalments[instalment].state
        if instalment in self.claimed:
            self.set(instalment, Instalment(instalment_after(state, "claimed"), self.claimed[instalment]))
        elif self.now > TERMS.window(instalment)[1]:
            self.set(instalment, Instalment(instalment_after(state, "window over")))

    def set(self, instalment: int, to: Instalment) -> None:
        changed = [*self.contract.instalments]
        changed[instalment] = to
        self.contract = msgspec.structs.replace(self.contract, instalments=tuple(changed))


@given(st.lists(moments, max_size=40))
def test_whatever_fails_salts_keep_to_their_windows_and_the_escrow_comes_back(history: list[Moment]) -> None:
    life = Life()
    for moment in history:
        life.live(moment)
    life.now = max(life.now, TERMS.end)
    for _ in range(3):
        life.live(Moment(1, 0, host_works=False, ledger_works=True))
    assert life.contract.state == "merged"
    assert {one.state for one in life.contract.instalments} <= {"claimed", "missed"}
    paid = {at: one.paid_stroops for at, one in enumerate(life.contract.instalments) if one.state == "claimed"}
    assert paid == life.claimed
    assert unclaimed(life.contract) == ()


@given(st.lists(moments, min_size=1, max_size=40))
def test_where_all_works_every_instalment_with_something_in_it_is_claimed(history: list[Moment]) -> None:
    life = Life()
    for moment in history:
        life.live(moment._replace(host_works=True, ledger_works=True, seconds=moment.seconds % (WINDOW // 4)))
    while life.contract.state != "merged":
        life.live(Moment(WINDOW // 8, 0, host_works=True, ledger_works=True))
    due_at = amounts(TERMS_NOW, life.contract.batches)
    assert life.claimed == {at: amount for at, amount in enumerate(due_at) if amount}
    assert life.waiting == 0 or not life.contract.batches


def test_what_is_wanted_beyond_the_end_cannot_be_covered() -> None:
    assert cost_of(NEW, GIB, TERMS.end) is None
    assert cost_of(NEW, GIB, TERMS.start) == pytest.approx(
        due_stroops(TERMS_NOW.price, GIB, TERMS.end - TERMS.start), abs=4
    )


def test_it_is_said_when_every_host_is_too_dear() -> None:
    assert out_of_reach([], None) is None
    assert out_of_reach([0, 5], None) is None
    assert out_of_reach([7, 5], 5) is None
    assert "the cheapest 0.0000005 XLM" in (out_of_reach([7, 5], None) or "")
    assert "and 0.0000004 are paid" in (out_of_reach([7, 5], 4) or "")
