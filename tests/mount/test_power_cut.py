"""The power goes: whatever of the unflushed the disk has kept, what was fsynced is there.

The long form is `python -m tests.reliability.cuts --count 300`; its numbers are in docs/reliability.md.
"""

from pathlib import Path

import pytest

from tests.reliability.cuts import broken_after, cuts, record, states
from tests.reliability.disk import compiled


@pytest.mark.timeout(600)
def test_nothing_fsynced_is_lost_when_the_power_goes(tmp_path: Path, big: bool) -> None:
    log = record(str(tmp_path / "recorded"), seed=21, steps=80, library=compiled(str(tmp_path)))
    wanted = cuts(log, 60 if big else 6, seed=21)
    broken = [
        f"{cut}: {one}"
        for cut, promises in states(str(tmp_path / "recorded" / "home"), log, wanted, str(tmp_path / "cut" / "home"))
        for one in broken_after(str(tmp_path / "cut"), promises, cut.seed, str(tmp_path / "recorded" / "phrase"))
    ]
    assert broken == []
