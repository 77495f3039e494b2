"""Histories of a contract at random: down, lost, late and out of order, with honest people and with liars.

Whatever happens, money in is money out and fees, and each instalment is paid once at most. Where the weather lets
honest people through in the end of each window, all that is due is paid; and who deviates gains what is documented.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layrfs.payments import envelopes
from layrfs.policy import paymaster
from layrfs.policy.contracts import SILENT_WINDOWS
from layrfs.policy.pricing import deposit_for
from tests.contract_ledger import KEYS, Scene
from tests.contract_parties import PIECE_BYTES, Host, Owner, Post, Vices, Weather, worth

WINDOWS, WINDOW_SECONDS = 4, 800
PRICE = 2 * 10**7
CREDIT_PIECES = 3
"""So many the deposit is for, and more than so many are never on credit."""

FIRST_TICKS, FIRST_TICK_SECONDS, TICK_SECONDS = 3, 15, 100
TICKS = FIRST_TICKS + WINDOWS * WINDOW_SECONDS // TICK_SECONDS
GOOD = Weather()
GOOD_FROM_SECONDS = 445
"""In each window: then four ticks are left, which is what a cover with a top-up, a salt and a claim take."""


LONGEST_BAD_SECONDS = GOOD_FROM_SECONDS + TICK_SECONDS
"""So long a host may be down before it looks again."""


def history_of(seed: int, storm: float) -> list[Weather]:
    """Of as many ticks as a contract has, in which so large a share of things goes wrong."""
    dice = random.Random(seed)

    def hits() -> bool:
        return dice.random() < storm

    return [
        Weather(hits(), hits(), hits(), hits(), dice.randrange(4) * hits(), dice.randrange(9), dice.random() < 1 / 3)
        for _ in range(TICKS)
    ]


histories = st.builds(history_of, st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.3, 0.6]))
windows = st.frozensets(st.integers(0, WINDOWS - 1))
ticks = st.integers(FIRST_TICKS, TICKS)
owners_vices = st.one_of(
    windows.map(lambda some: Vices(silent=some)),
    windows.map(lambda some: Vices(rubbish=some)),
    windows.map(lambda some: Vices(sweeps=True, silent=some)),
    st.just(Vices(never_covers=True)),
    st.just(Vices(does_not_top_up=True)),
    st.builds(
        lambda at, late, some: Vices(ends_at=at, uses_ends_late=late, silent=some),
        st.frozensets(st.integers(0, TICKS), max_size=9),
        st.booleans(),
        windows,
    ),
    st.sampled_from(["with less", "to end early", "for another host"]).map(lambda other: Vices(sets_up=other)),
)
hosts_vices = st.one_of(
    st.builds(lambda at, greedy: Vices(drops_all_at=at, is_greedy=greedy), ticks, st.booleans()),
    st.builds(lambda at, greedy: Vices(loses_one_at=at, is_greedy=greedy), ticks, st.booleans()),
    st.just(Vices(is_greedy=True)),
)


VIRTUES = Vices()._asdict()


class Played(NamedTuple):
    """How it ended. Amounts in stroops; worth is what was kept or served, at the contract's price."""

    owner: Owner
    host: Host
    paid: int
    paid_instalments: frozenset[int]
    fees: int
    largest: int
    is_settled: bool

    @property
    def due_instalments(self) -> set[int]:
        amounts = paymaster.amounts(self.owner.scene.terms, self.owner.contract.batches)
        return {at for at, amount in enumerate(amounts) if amount}

    @property
    def one_of_the_deposit(self) -> int:
        return self.owner.scene.terms.deposit_stroops // WINDOWS

    @property
    def owner_gains(self) -> Fraction:
        return self.owner.served - self.paid

    @property
    def host_gains(self) -> Fraction:
        return self.paid - self.host.cost

    @property
    def rounding(self) -> int:
        return WINDOWS * (len(self.owner.contract.batches) + 1)


def played(history: list[Weather], vices: Vices) -> Played:
    deposit = deposit_for(PRICE, CREDIT_PIECES * PIECE_BYTES, WINDOWS, WINDOW_SECONDS)
    scene = Scene(instalments=WINDOWS, window_seconds=WINDOW_SECONDS, price=PRICE, deposit_stroops=deposit)
    post = Post(scene)
    host = Host(scene, post, vices)
    owner = Owner(scene, post, host, vices)
    start = {name: scene.balance(name) for name in KEYS}
    pool, total = scene.ledger.state.header.fee_pool_stroops, scene.ledger.state.total_stroops()
    for tick, weather in enumerate([*history, *[GOOD] * 5]):
        now = scene.ledger.state.header.closed_at
        if not weather.owner_is_down:
            owner.tick(tick, now, weather)
        if not weather.host_is_down:
            host.tick(tick, now, weather)
        post.deliver(tick)
        seconds = FIRST_TICK_SECONDS if tick < FIRST_TICKS else TICK_SECONDS
        counted = max(0, min(seconds, scene.terms.end - now))
        owner.keep(counted)
        host.keep(counted)
        scene.close(seconds)
        assert scene.ledger.state.total_stroops() == total
    scene.run(envelopes.refund(owner.set_up_terms))
    gone = {name: start[name] - scene.balance(name) for name in KEYS}
    fees = scene.ledger.state.header.fee_pool_stroops - pool
    assert gone["mallory"] == gone["escrow"] == 0
    assert gone["owner"] == fees - gone["host"]
    claims = claims_in(owner)
    ends = [stroops for hash_, stroops in owner.ended_with.items() if is_done(scene, hash_)]
    assert len(ends) <= 1
    assert -gone["host"] == sum(stroops for _, stroops in claims) + sum(ends)
    assert max(Counter(at for at, _ in claims).values(), default=0) <= 1
    largest = max(paymaster.amounts(scene.terms, owner.contract.batches))
    return Played(owner, host, -gone["host"], frozenset(at for at, _ in claims), fees, largest, bool(ends))


def is_done(scene: Scene, hash_: bytes) -> bool:
    entry = scene.ledger.books.entry(hash_)
    return entry is not None and entry.outcome.is_success


def claims_in(owner: Owner) -> list[tuple[int, int]]:
    """Which instalments were paid on the ledger, and how much."""
    found = []
    for at, versions in enumerate(owner.signed):
        for each in {version.hash: version for version in versions}.values():
            entry = owner.scene.ledger.books.entry(each.hash)
            if entry is not None and entry.outcome.is_success:
                found.append((at, amount_of(each)))
    return found


def amount_of(claim: envelopes.Envelope) -> int:
    """The last eight bytes but four of a payment are its amount."""
    return int.from_bytes(claim.transaction[-12:-4], "big")


def fair(history: list[Weather]) -> list[Weather]:
    """The same, but that in the end of each window nothing is down, lost or late, and nothing new comes after that."""
    return [
        Weather(stores=each.stores and second_of(tick) <= GOOD_FROM_SECONDS) if is_good(tick) else each
        for tick, each in enumerate(history)
    ]


def is_good(tick: int) -> bool:
    return tick < FIRST_TICKS or second_of(tick) >= GOOD_FROM_SECONDS


def second_of(tick: int) -> int:
    """Of its window."""
    return (FIRST_TICKS * FIRST_TICK_SECONDS + (tick - FIRST_TICKS) * TICK_SECONDS) % WINDOW_SECONDS


def check(property_: Callable[..., None], *drawn: st.SearchStrategy[object], big: bool, examples: int = 20) -> None:
    """For histories at random; a thousand with `--big`."""
    settings(max_examples=1000 if big else examples)(given(*drawn)(property_))()


def test_money_in_is_money_out_and_fees_whatever_happens(big: bool) -> None:
    def holds(history: list[Weather], vices: Vices) -> None:
        end = played(history, vices)
        assert end.paid <= sum(paymaster.amounts(end.owner.scene.terms, end.owner.contract.batches))

    check(holds, histories, st.one_of(st.just(Vices()), owners_vices, hosts_vices), big=big)


def test_honest_people_who_get_through_are_served_and_paid_for_it(big: bool) -> None:
    def holds(history: list[Weather]) -> None:
        end = played(fair(history), Vices())
        assert end.paid_instalments == end.due_instalments
        assert end.owner.contract.state == "merged"
        assert end.owner.served == end.host.cost
        assert 0 <= end.host_gains - end.owner.overpaid <= end.rounding

    check(holds, histories, big=big)


def test_an_owner_gains_an_instalment_where_it_withholds_one_and_what_is_on_credit(big: bool) -> None:
    check(owner_gains_little, histories, owners_vices, big=big)


@pytest.mark.parametrize("seed", [3, 4, 21])
@pytest.mark.parametrize(
    "vices",
    [
        Vices(silent=frozenset({0})),
        Vices(silent=frozenset({1, 3})),
        Vices(silent=frozenset({0, 1, 2, 3})),
        Vices(rubbish=frozenset({0, 2})),
        Vices(never_covers=True),
        Vices(does_not_top_up=True),
        Vices(sweeps=True),
        Vices(ends_at=frozenset(range(3, TICKS, 2)), uses_ends_late=True),
        Vices(ends_at=frozenset(range(3, TICKS)), offers_less=10**9),
        Vices(ends_at=frozenset({4, 12}), uses_ends_late=True),
        Vices(sets_up="with less"),
        Vices(sets_up="to end early"),
        Vices(sets_up="for another host"),
    ],
    ids=lambda vices: ", ".join(f"{name}={value}" for name, value in vices._asdict().items() if value != VIRTUES[name]),
)
def test_whatever_an_owner_tries_it_gains_little(vices: Vices, seed: int) -> None:
    owner_gains_little(history_of(seed, 0.3), vices)


def owner_gains_little(history: list[Weather], vices: Vices) -> None:
    end = played(fair(history), vices)
    terms, unpaid, on_credit = end.owner.scene.terms, end.due_instalments - end.paid_instalments, Fraction()
    if vices.never_covers or vices.does_not_top_up:
        on_credit = end.one_of_the_deposit + worth(terms, CREDIT_PIECES, LONGEST_BAD_SECONDS)
    elif not vices.ends_at:  # a salt waits while an end may come, and comes too late: as if it had been withheld
        assert unpaid <= vices.silent | vices.rubbish
    assert vices.ends_at or not unpaid & end.host.heard
    noticed_late = worth(terms, len(end.host.pieces), LONGEST_BAD_SECONDS)
    assert end.owner_gains <= len(unpaid) * end.largest + on_credit
    assert end.owner_gains <= SILENT_WINDOWS * end.largest + noticed_late + on_credit


@pytest.mark.parametrize("at", range(FIRST_TICKS, TICKS, 3))
@pytest.mark.parametrize("less", [0, 10**9])
def test_an_end_by_consent_gives_each_what_was_kept(at: int, less: int) -> None:
    end = played(fair(history_of(at, 0.0)), Vices(ends_at=frozenset({at, at + 1, at + 2}), offers_less=less))
    withheld = 0 if end.is_settled else len(end.due_instalments - end.paid_instalments)
    assert end.owner_gains <= withheld * end.largest
    assert end.host_gains - end.owner.overpaid <= end.largest + end.rounding


def test_ends_by_consent_do_come() -> None:
    came = [
        played(fair(history_of(at, 0.0)), Vices(ends_at=frozenset({at, at + 1, at + 2}))).is_settled
        for at in range(FIRST_TICKS + 6, TICKS - 3, 4)
    ]
    assert any(came)


def test_a_host_that_deviates_gains_one_instalment_at_most(big: bool) -> None:
    check(host_gains_little, histories, hosts_vices, big=big)


@pytest.mark.parametrize("seed", [6, 17, 19])
@pytest.mark.parametrize("at", [8, 12, 20])
def test_a_host_that_claims_and_lets_go_gains_one_instalment_at_most(at: int, seed: int) -> None:
    host_gains_little(history_of(seed, 0.0), Vices(drops_all_at=at))


def host_gains_little(history: list[Weather], vices: Vices) -> None:
    end = played(fair(history), vices)
    assert end.host_gains - end.owner.overpaid <= end.largest + end.rounding


def test_whoever_never_discloses_a_salt_is_not_served_in_the_end() -> None:
    end = played(fair(history_of(4, 0.0)), Vices(silent=frozenset(range(WINDOWS))))
    assert not end.paid_instalments
    assert end.due_instalments == {0, 1, 2, 3}
    assert 2 * end.largest < end.owner_gains <= 3 * end.largest


# ------------------------------------------------------- one contract, and then the next

RENEWED_TICKS = FIRST_TICKS + 2 * WINDOWS * WINDOW_SECONDS // TICK_SECONDS


class PlayedOn(NamedTuple):
    """How two contracts ended, of which the second goes on with what is in the first."""

    first: Owner
    second: Owner | None
    paid: int
    kept: Fraction
    served: Fraction
    is_settled: bool
    """Whether the first one ended by consent before its time."""

    @property
    def owners(self) -> list[Owner]:
        return [self.first] if self.second is None else [self.first, self.second]

    @property
    def overpaid(self) -> Fraction:
        return sum((each.overpaid for each in self.owners), Fraction())

    @property
    def rounding(self) -> int:
        return WINDOWS * sum(len(each.contract.batches) + 1 for each in self.owners)

    @property
    def largest(self) -> int:
        return max(max(paymaster.amounts(each.scene.terms, each.contract.batches)) for each in self.owners)


def played_on(history: list[Weather], vices: Vices, later_vices: Vices) -> PlayedOn:
    deposit = deposit_for(PRICE, CREDIT_PIECES * PIECE_BYTES, WINDOWS, WINDOW_SECONDS)
    scene = Scene(instalments=WINDOWS, window_seconds=WINDOW_SECONDS, price=PRICE, deposit_stroops=deposit)
    post = Post(scene)
    hosts, renewed_at = [Host(scene, post, vices)], scene.terms.window(WINDOWS - 1)[0] + GOOD_FROM_SECONDS
    owners = [Owner(scene, post, hosts[0], vices)]
    start = {name: scene.balance(name) for name in KEYS}
    pool, kept, served, settled_at = scene.ledger.state.header.fee_pool_stroops, Fraction(), Fraction(), None
    for tick, weather, seconds in moments(history):
        now = scene.ledger.state.header.closed_at
        if len(owners) == 1 and now >= renewed_at and not weather.owner_is_down:
            again = scene.renewed()
            hosts.append(Host(again, post, later_vices, hosts[0]))
            owners.append(Owner(again, post, hosts[1], later_vices, owners[0]))
        for each in [] if weather.owner_is_down else owners:
            each.tick(tick, now, weather)
        for each in [] if weather.host_is_down else hosts:
            each.tick(tick, now, weather)
        post.deliver(tick)
        counted = worth(scene.terms, len(hosts[0].pieces), max(0, min(seconds, owners[-1].scene.terms.end - now)))
        kept += counted
        served += counted if any(each.serves for each in hosts) else 0
        scene.close(seconds)
        if owners[0].contract.state == "merged" and settled_at is None:
            settled_at = now
            assert now >= scene.terms.end or owners[1].covered >= owners[0].covered, "a piece is in no contract"
    for each in owners:
        scene.run(envelopes.refund(each.set_up_terms))
        assert each.scene.balance("escrow") == 0
    gone = {name: start[name] - scene.balance(name) for name in KEYS}
    assert gone["owner"] == scene.ledger.state.header.fee_pool_stroops - pool - gone["host"]
    claims = [(each, at, stroops) for each in owners for at, stroops in claims_in(each)]
    assert len({(each.scene.terms.escrow, at) for each, at, _ in claims}) == len(claims)
    ends = [stroops for each in owners for hash_, stroops in each.ended_with.items() if is_done(scene, hash_)]
    assert -gone["host"] == sum(stroops for _, _, stroops in claims) + sum(ends)
    is_settled = settled_at is not None and settled_at < scene.terms.end
    return PlayedOn(owners[0], (*owners, None)[1], -gone["host"], kept, served, is_settled)


def moments(history: list[Weather]) -> Iterator[tuple[int, Weather, int]]:
    """Ticks with their seconds; those in which a set-up may be on its way are cut into short ones."""
    for tick, weather in enumerate([*history, *[GOOD] * 5]):
        is_renewing = 4 <= TICKS - tick <= 6
        cut = [FIRST_TICK_SECONDS] * 4 + [TICK_SECONDS - 4 * FIRST_TICK_SECONDS] if is_renewing else [TICK_SECONDS]
        for seconds in [FIRST_TICK_SECONDS] if tick < FIRST_TICKS else cut:
            yield tick, weather, seconds


def long_history_of(seed: int, storm: float) -> list[Weather]:
    return [*history_of(seed, storm), *history_of(seed + 1, storm)][:RENEWED_TICKS]


long_histories = st.builds(long_history_of, st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.3, 0.6]))


def test_what_is_handed_on_is_paid_for_once_and_without_a_gap(big: bool) -> None:
    def holds(history: list[Weather]) -> None:
        end = played_on(fair(history), Vices(), Vices())
        assert {each.contract.state for each in end.owners} == {"merged"}
        assert end.served == end.kept
        assert 0 <= end.paid - end.kept - end.overpaid <= end.rounding

    check(holds, long_histories, big=big, examples=8)


def test_what_is_handed_on_ends_by_consent_in_good_weather() -> None:
    assert all(played_on(fair(long_history_of(seed, 0.0)), Vices(), Vices()).is_settled for seed in range(5))


def test_money_that_is_handed_on_is_counted_whatever_happens(big: bool) -> None:
    def holds(history: list[Weather], vices: Vices, later_vices: Vices) -> None:
        played_on(history, vices, later_vices)

    some = st.one_of(st.just(Vices()), owners_vices)
    check(holds, long_histories, some, some, big=big, examples=8)


def test_nobody_gains_by_what_is_handed_on(big: bool) -> None:
    def holds(history: list[Weather], owner: Vices, host: Vices) -> None:
        end = played_on(fair(history), owner, owner)
        unpaid = sum(
            amount > 0 and at not in {claimed for claimed, _ in claims_in(each)}
            for each in end.owners
            for at, amount in enumerate(paymaster.amounts(each.scene.terms, each.contract.batches))
        )
        assert end.served - end.paid <= unpaid * end.largest + end.rounding
        dropping = played_on(fair(history), host, Vices(is_greedy=host.is_greedy))
        assert dropping.paid - dropping.kept - dropping.overpaid <= dropping.largest + dropping.rounding

    drops = st.builds(lambda at: Vices(drops_all_at=at, is_greedy=True), st.integers(FIRST_TICKS, RENEWED_TICKS))
    check(holds, long_histories, windows.map(lambda some: Vices(silent=some)), drops, big=big, examples=8)
