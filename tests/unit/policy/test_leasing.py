"""Who may write: nobody is overrun unasked, nobody goes on from an old version, and of two that race one wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.model.history import Lease
from layrfs.policy.leasing import (
    CLOCK_SLACK_SECONDS,
    LEASE_SECONDS,
    RENEWAL_SECONDS,
    CatchUp,
    ClaimFirst,
    Facts,
    Offline,
    Proceed,
    Refuse,
    Seen,
    Unknown,
    outcome,
    plan,
    renewal_due,
)

OURS, THEIRS = bytes([1]) * 20, bytes([2]) * 20
NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


def lease(device: bytes = THEIRS, left_ms: int = 400_000) -> Lease:
    return Lease(device, "desk" if device == THEIRS else "laptop", NOW_MS + left_ms)


def released(device: bytes) -> Lease:
    return Lease(device, "desk", 0)


def facts(
    *,
    known: Seen | None = None,
    found: Seen | None = None,
    reached: bool = True,
    same: bool = False,
    unchanged_seconds: float = 0.0,
    take_over: bool = False,
) -> Facts:
    return Facts(OURS, known, found, reached, same, unchanged_seconds, NOW_MS, take_over)


leases = st.none() | st.builds(
    Lease,
    st.sampled_from([OURS, THEIRS]),
    st.just("desk"),
    st.just(0) | st.integers(NOW_MS - 3 * HOUR_MS, NOW_MS + 3 * HOUR_MS),
)
seen = st.none() | st.builds(Seen, st.integers(1, 5), leases)


@st.composite
def situations(draw: st.DrawFn) -> Facts:
    known, reached = draw(seen), draw(st.booleans())
    same = reached and known is not None and draw(st.booleans())
    found = known if same else draw(seen) if reached else None
    unchanged = draw(st.floats(0, 2 * LEASE_SECONDS))
    return Facts(OURS, known, found, reached, same, unchanged, NOW_MS, draw(st.booleans()))


@given(situations())
def test_only_the_newest_version_is_gone_on_from(situation: Facts) -> None:
    decided = plan(situation)
    known, found = situation.known, situation.found
    behind = found is not None and not situation.same and (known is None or found.version >= known.version)
    if isinstance(decided, CatchUp):
        assert behind, "nothing is replaced but by a newer version"
    if isinstance(decided, Proceed | ClaimFirst):
        assert situation.reached
        assert not behind, "nobody goes on from an old version"
    if isinstance(decided, Offline):
        assert not situation.reached
    if situation.take_over:
        assert not isinstance(decided, Refuse | Unknown), "who insists gets it"


@given(situations())
def test_a_writer_that_lives_is_overrun_only_by_who_insists(situation: Facts) -> None:
    newest = situation.found if plan_is_behind(situation) else situation.known
    if newest is None or newest.lease is None or newest.lease.device == OURS or not newest.lease.until_ms:
        return
    ends_ms = newest.lease.until_ms + CLOCK_SLACK_SECONDS * 1000
    lives = ends_ms > NOW_MS and situation.unchanged_seconds < LEASE_SECONDS - 1
    if lives and not situation.take_over:
        assert isinstance(plan(situation), Refuse | Unknown)


def plan_is_behind(situation: Facts) -> bool:
    known, found = situation.known, situation.found
    return found is not None and not situation.same and (known is None or found.version >= known.version)


def test_the_holder_is_named_and_the_end_is_by_our_clock() -> None:
    ahead = Seen(7, lease(left_ms=HOUR_MS))  # its clock is an hour ahead, or ours behind
    decided = plan(facts(found=ahead, unchanged_seconds=100))
    assert decided == Refuse("desk", NOW_MS + (LEASE_SECONDS - 100) * 1000)
    assert plan(facts(found=ahead, unchanged_seconds=LEASE_SECONDS)) == CatchUp()


def test_a_lease_that_ended_a_moment_ago_may_be_another_clocks_and_one_long_ago_is_not() -> None:
    assert isinstance(plan(facts(found=Seen(7, lease(left_ms=-HOUR_MS + 1)))), Refuse)
    assert isinstance(plan(facts(found=Seen(7, lease(left_ms=-HOUR_MS)))), CatchUp)


@pytest.mark.parametrize("known", [None, Seen(6, released(OURS)), Seen(7, lease(OURS))], ids=["new", "old", "tie"])
def test_another_machines_version_takes_the_place_of_what_is_here(known: Seen | None) -> None:
    assert plan(facts(known=known, found=Seen(7, released(THEIRS)))) == CatchUp()


def test_our_own_newest_version_is_gone_on_from() -> None:
    held, given_back = Seen(7, lease(OURS)), Seen(7, released(OURS))
    assert plan(facts(known=held, found=held, same=True)) == Proceed()
    assert plan(facts(known=given_back, found=given_back, same=True)) == ClaimFirst()
    assert plan(facts(known=held, found=Seen(6, released(THEIRS)))) == Proceed(), "it never reached a host"
    assert plan(facts()) == Proceed(), "a new volume"


def test_a_backup_of_the_state_directory_catches_up_with_its_own_later_versions() -> None:
    assert plan(facts(known=Seen(3, lease(OURS)), found=Seen(7, lease(OURS)))) == CatchUp()


def test_without_hosts_only_the_last_writer_goes_on() -> None:
    assert plan(facts(reached=False)) == Offline()
    assert plan(facts(known=Seen(7, released(OURS)), reached=False)) == Offline()
    assert plan(facts(known=Seen(7, released(THEIRS)), reached=False)) == Unknown("desk")
    assert plan(facts(known=Seen(7, lease()), reached=False, take_over=True)) == Offline()


def test_a_recovered_volume_waits_for_the_machine_that_wrote_it() -> None:
    known = Seen(7, lease())
    assert isinstance(plan(facts(known=known, found=known, same=True)), Refuse)
    assert plan(facts(known=known, found=known, same=True, take_over=True)) == ClaimFirst()


def test_a_lease_is_renewed_at_its_half_and_when_clocks_were_set() -> None:
    half_ms = int(RENEWAL_SECONDS * 1000)
    assert not renewal_due(lease(OURS, LEASE_SECONDS * 1000), OURS, NOW_MS)
    assert not renewal_due(lease(OURS, half_ms + 1), OURS, NOW_MS)
    assert renewal_due(lease(OURS, half_ms), OURS, NOW_MS)
    assert renewal_due(lease(OURS, LEASE_SECONDS * 1000 + 1), OURS, NOW_MS), "our clock was set back"
    assert renewal_due(lease(THEIRS), OURS, NOW_MS)
    assert renewal_due(None, OURS, NOW_MS)


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=12), st.booleans(), st.integers(1, 9))
def test_of_two_that_publish_one_version_exactly_one_wins(kept: list[str], a_is_preferred: bool, version: int) -> None:
    """``kept``: what each host got first, which is what it keeps. Both machines ask all of them afterwards."""
    preferred = "a" if a_is_preferred else "b"
    newest = preferred if preferred in kept else kept[0]
    results = [outcome(version, version, same=newest == machine) for machine in "ab"]
    assert sorted(results) == ["lost", "won"]


def test_a_host_that_says_stale_and_shows_nothing_newer_proves_nothing() -> None:
    assert outcome(7, None, same=False) == "unproven"
    assert outcome(7, 6, same=False) == "unproven"
    assert outcome(7, 8, same=False) == "lost"
