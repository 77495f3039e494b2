"""Which files a start looks through, row by row of the table of what may have happened."""

from __future__ import annotations

import pytest

from layrfs.policy.recovery import POWER_CUT_SECONDS, Look, doubtful_since, look

NOW = 1_000_000.0
DAY = 86_400.0


@pytest.mark.parametrize(
    ("power_cut", "trusted", "other_versions", "since"),
    [
        (False, None, False, NOW - 2),
        (True, None, False, NOW - POWER_CUT_SECONDS),
        (True, NOW - DAY, False, NOW - DAY - 2),
        (True, NOW, False, NOW - POWER_CUT_SECONDS),
        (False, None, True, 0),
        (True, NOW - DAY, True, 0),
    ],
)
def test_since_when_bytes_and_rows_may_differ(
    *, power_cut: bool, trusted: float | None, other_versions: bool, since: float
) -> None:
    assert doubtful_since(written=NOW, power_cut=power_cut, trusted=trusted, other_versions=other_versions) == since


def test_a_cache_that_never_saw_a_commit_is_looked_through_altogether() -> None:
    assert doubtful_since(written=0, power_cut=False, trusted=None, other_versions=False) <= 0


@pytest.mark.parametrize(
    ("age_seconds", "used", "too_long", "power_cut", "verdict"),
    [
        (0, False, False, False, "new bytes are new"),
        (0, False, False, True, "new bytes are new"),
        (0, True, True, True, "new bytes are new"),
        (DAY, False, False, False, "no"),
        (DAY, False, False, True, "no"),
        (DAY, True, False, True, "new bytes were cut off"),  # filled or cut just now, and the disk knows nothing of it
        (DAY, False, True, True, "new bytes were cut off"),
        (DAY, False, True, False, "new bytes are new"),  # the cut was committed and not done; all else is in memory
    ],
)
def test_which_files_are_looked_through(
    *, age_seconds: float, used: bool, too_long: bool, power_cut: bool, verdict: Look
) -> None:
    found = look(changed=NOW - age_seconds, since=NOW - 10, used=used, too_long=too_long, power_cut=power_cut)
    assert found == verdict
