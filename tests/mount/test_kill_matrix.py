"""`kill -9` of everybody, at random moments and at every named crash point: what was fsynced is there.

The long form is `python -m tests.reliability.kills --count 1000`; its numbers are in docs/reliability.md.
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from layrfs.crashpoints import POINTS, VARIABLE, armed
from tests.drive import REPOSITORY
from tests.reliability.arena import Arena
from tests.reliability.kills import ELSEWHERE, OF_HOSTS, OF_MOUNT, OF_RECOVER, OF_START, RANDOM, Matrix


def matrix_of(directory: Path, turns: list[str], seed: int) -> list[str]:
    """Everything that went wrong in these turns, and after them."""
    with Arena(str(directory)) as arena:
        matrix = Matrix(arena, seed)
        for what, following in itertools.pairwise([*turns, "the mount"]):
            matrix.turn(what, following)
        return [*(one for row in matrix.rows.values() for one in row.broken), *matrix.settle()]


SHARE = 5
"""Every fifth crash point of the mount has its turn in the suite, all of them with ``--big``."""


def test_nothing_fsynced_is_lost_whoever_is_killed_at_whatever_moment(tmp_path: Path, big: bool) -> None:
    assert matrix_of(tmp_path, list(RANDOM) * (25 if big else 1), seed=11) == []


@pytest.mark.timeout(900)
def test_nothing_fsynced_is_lost_at_crash_points_of_the_mount_and_its_workers(tmp_path: Path, big: bool) -> None:
    assert matrix_of(tmp_path, list(OF_MOUNT[:: 1 if big else SHARE]), seed=12) == []


@pytest.mark.timeout(900)
def test_nothing_fsynced_is_lost_at_crash_points_of_hosts_of_the_start_and_of_recover(tmp_path: Path) -> None:
    assert matrix_of(tmp_path, [*OF_HOSTS, *OF_START, *OF_RECOVER], seed=13) == []


def test_every_crash_point_is_in_the_code_once_and_in_one_of_these_tests() -> None:
    found = []
    for top, _, names in os.walk(os.path.join(REPOSITORY, "layrfs")):
        for name in (name for name in names if name.endswith(".py") and name != "crashpoints.py"):
            text = Path(top, name).read_text()
            found += [part.partition('"')[0] for part in text.split('reached("')[1:]]
    assert sorted(found) == sorted(POINTS)
    assert sorted([*OF_MOUNT, *OF_HOSTS, *OF_START, *OF_RECOVER, *ELSEWHERE]) == sorted(POINTS)


def test_an_armed_process_dies_once_and_at_its_turn(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    program = (
        "from layrfs.crashpoints import reached\nfor turn in range(5): reached('renamed'); print(turn, flush=True)"
    )

    def run() -> tuple[int, str]:
        variables = {**os.environ, VARIABLE: f"renamed@3@{flag}", "PYTHONPATH": REPOSITORY}
        done = subprocess.run(
            [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    flag.write_text("")
    assert run() == (-9, "0\n1\n")
    assert not flag.exists()
    assert run() == (0, "0\n1\n2\n3\n4\n")


@pytest.mark.parametrize("setting", ["nowhere@1@/tmp/x", "renamed@many@/tmp/x", "renamed"])
def test_what_is_no_crash_point_is_an_error(setting: str) -> None:
    with pytest.raises(ValueError, match=r"crash point|invalid literal|unpack"):
        armed(setting)
