"""The disk says no: callers are told, nothing promised is lost, the mount lives, and it heals when the disk does."""

from pathlib import Path

import pytest

from tests.reliability.arena import Arena
from tests.reliability.disk import compiled
from tests.reliability.faults import FAULTS, Trial


@pytest.mark.timeout(600)
def test_a_failing_disk_loses_nothing_promised_and_ends_nothing(tmp_path: Path) -> None:
    with Arena(str(tmp_path)) as arena:
        trial = Trial(arena, compiled(str(tmp_path)), seed=31_000)
        broken = {fault.what: trial.go_through(fault) for fault in FAULTS}
    assert {what: sentences for what, sentences in broken.items() if sentences} == {}
