"""Who must be silent for how long before something is forgotten."""

from __future__ import annotations

import pytest

from layrfs.policy.leases import (
    DAY_SECONDS,
    DEFAULT_GRACE_SECONDS,
    LEASE_SECONDS,
    RENEW_SECONDS,
    oldest_kept,
    renewal_due,
)

NOW = 1_900_000_000.0


def test_lease_and_grace_are_a_year() -> None:
    assert oldest_kept(NOW, DEFAULT_GRACE_SECONDS) == NOW - 365 * DAY_SECONDS


def test_an_owner_who_is_there_now_and_then_keeps_everything() -> None:
    assert RENEW_SECONDS * 10 <= LEASE_SECONDS
    assert oldest_kept(NOW, 0.0) < NOW - RENEW_SECONDS


@pytest.mark.parametrize(
    ("renewed", "due"),
    [(None, True), (NOW, False), (NOW - RENEW_SECONDS + 1, False), (NOW - RENEW_SECONDS, True), (NOW + 1, True)],
)
def test_when_to_renew(renewed: float | None, due: bool) -> None:
    assert renewal_due(renewed, NOW) is due
