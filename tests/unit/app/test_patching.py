"""What ``layrfs patch`` answers when very much is lost: lists are cut, and nobody else is kept waiting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from trio.abc import Instrument

from layrfs.app import patching
from layrfs.app.patching import Patching
from layrfs.control.commands import Patch
from layrfs.model.status import ProgressReport
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.lost import LostRange
from layrfs.upkeep.needs import Need

SHARDS, EACH, LISTED = 200, 7, 50


class Losses:
    """As patcher and as what is lost: every shard is, with some parts of a file."""

    def __init__(self) -> None:
        self.looked_at: list[int] = []

    async def plan(self, _shards: Sequence[int] | None) -> list[Need]:
        """All of them."""
        return [Need(1, shard, "lost", ()) for shard in range(SHARDS)]

    def ranges(self, shard: int) -> list[LostRange]:
        """A query for each in the real one, and a thousand ranges at most."""
        self.looked_at.append(shard)
        return [LostRange(b"/file", shard * EACH + part, 1) for part in range(EACH)]


class Upkeep(NamedTuple):
    """Of the real one what a patching asks."""

    patcher: Losses
    lost: Losses

    async def ask_all(self) -> None:
        """Hosts say nothing new."""


class Steps(Instrument):
    """How often a task gave way."""

    def __init__(self) -> None:
        self.count = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - trio's name for it
        """See trio."""
        self.count += 1


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Database(str(tmp_path / "metadata.db")) as database:
        yield Catalog(database)


async def test_what_is_lost_is_looked_up_piece_by_piece_and_no_further_than_is_listed(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patching, "MOST_LISTED", LISTED)
    losses, steps, said = Losses(), Steps(), list[ProgressReport]()

    async def everything(_path: bytes) -> None:
        return None

    async def silent_hosts() -> int:
        return 0

    trio.lowlevel.add_instrument(steps)
    patch = Patching(Upkeep(losses, losses), catalog, everything, silent_hosts, read_only=False).patch
    report = await patch(Patch(path=b"", dry_run=True), said.append)
    assert (report.lost, len(report.listed), len(report.lost_parts)) == (SHARDS, LISTED, LISTED)
    assert losses.looked_at == list(range(-(-LISTED // EACH)))
    assert steps.count >= LISTED + len(losses.looked_at)
