"""From files to shards to hosts' answers to the report of `layrfs audit`; nobody is asked but a dictionary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.app.auditing import OF_METADATA, OF_THE_PAST, Auditing
from layrfs.ids import BlockNumber, InodeNumber, NodeId, PieceId, Salt, ShardId
from layrfs.model.audits import MOST_LISTED, AuditReport
from layrfs.model.history import Segment
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.model.status import ProgressReport
from layrfs.storage.audits import Rounds
from layrfs.storage.content import Catalog, NewContent
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree
from layrfs.storage.trust import Trusts
from layrfs.upkeep.auditor import Auditor
from layrfs.upkeep.holdings import Holdings
from tests.fakes.challenging import FakeChallenger

HOSTS = [NodeId(bytes([number]) * 20) for number in (1, 2, 3)]
A, B, HOLE, NEW = (InodeNumber(number) for number in (10, 11, 12, 13))


class World:
    """``/a`` is in two shards, ``/b`` in the second of them; a third is the past's, a fourth the list of files'."""

    def __init__(self, path: Path) -> None:
        self.database = Database(str(path / "metadata.db"))
        self.catalog, self.tree = Catalog(self.database), Tree(self.database)
        self.records = [record(number) for number in range(4)]
        first, second, _past = (self.catalog.add_shard(shard) for shard in self.records[:3])
        for name, inode, shards in ((b"a", A, (first, second)), (b"b", B, (second,))):
            self.tree.add(InodeNumber(1), name, inode)
            for block, shard in enumerate(shards):
                (number,) = self.catalog.add_content(shard, [NewContent(bytes([shard]) * 32, 0, 5)])
                self.catalog.put_blocks([(inode, BlockNumber(block), number, 5)])
        self.challenger = FakeChallenger(others=set(HOSTS), seconds=0)
        trusts = Trusts(self.database)
        holdings = Holdings(self.database.path, self.catalog, lambda: [Segment("changes", 1, 10, (self.records[3],))])
        self.auditing = Auditing(
            catalog=self.catalog,
            tree=self.tree,
            rounds=Rounds(self.database),
            holdings=holdings,
            trusts=trusts,
            auditor=Auditor(
                challenger=self.challenger,
                trusts=trusts,
                holdings=holdings,
                on_lost=lambda *_what: None,
                on_held=lambda *_what: None,
            ),
            root_keepers=self.root_keepers,
        )
        self.progress: list[ProgressReport] = []

    async def root_keepers(self) -> int:
        return 2

    async def report(self, *inodes: InodeNumber, whole: bool = False) -> AuditReport:
        return await self.auditing.audit(inodes, "prove", lambda inode: inode == NEW, self.progress.append, whole=whole)


def record(number: int) -> ShardRecord:
    name = number.to_bytes(4, "big") * 8
    pieces = tuple(PieceRecord(at, 0, PieceId(bytes([at]) + name[1:]), host) for at, host in enumerate(HOSTS))
    return ShardRecord(ShardId(name), Salt(bytes(16)), 100, 200, Redundancy(2, 3), pieces)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.database.close()


async def test_a_shard_that_two_files_need_is_asked_for_once(world: World) -> None:
    found = await world.report(A, B, HOLE, NEW)
    assert (found.files, found.unsent_files, found.shards, found.outcomes) == (2, 1, 2, {"passed": 6})
    assert len(world.challenger.asked) == 6
    assert {piece.path for piece in found.pieces} == {b"/a"}
    assert [host.outcomes for host in found.hosts] == [{"passed": 2}] * 3
    assert found.root_keepers is None
    assert "6 pieces asked for, 2 of 2 shards" in world.progress[-1].text


async def test_the_whole_volume_is_also_its_list_of_files_and_its_past(world: World) -> None:
    found = await world.report(A, B, whole=True)
    assert (found.shards, found.outcomes, found.root_keepers) == (4, {"passed": 12}, 2)
    assert {piece.path for piece in found.pieces} == {b"/a", OF_METADATA, OF_THE_PAST}


async def test_what_could_not_be_read_now_is_counted_and_what_did_not_pass_comes_first(world: World) -> None:
    world.challenger.hosts = {HOSTS[0]: "missing", HOSTS[1]: "unknown"}
    found = await world.report(A)
    assert found.short_shards == 0
    assert [piece.outcome for piece in found.pieces[:4]].count("passed") == 0
    world.challenger.hosts[HOSTS[1]] = "offline"
    assert (await world.report(A)).short_shards == 2


async def test_nothing_is_asked_of_nobody(world: World) -> None:
    found = await world.report(HOLE, NEW)
    assert (found.shards, found.outcomes, found.pieces, found.unsent_files) == (0, {}, (), 1)
    assert world.challenger.asked == []


async def test_lists_are_bounded_and_sums_are_not(world: World) -> None:
    for number in range(10, 10 + MOST_LISTED // 2):
        world.catalog.add_shard(record(number))
    gone = world.records[0].pieces[2].id
    world.challenger.pieces[gone] = "missing"
    found = await world.report(A, whole=True)
    assert len(found.pieces) == MOST_LISTED
    assert found.pieces[0].piece == gone.hex()
    assert sum(found.outcomes.values()) == MOST_LISTED + found.left_off == 3 * found.shards
