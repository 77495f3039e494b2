"""Copies that metadata lacks, and hosts that are away: nothing else waits, and nobody is asked for ever."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import trio

from layrfs.app.trusting import Trusting
from layrfs.errors import Unavailable
from layrfs.history.completing import MOST_REFUSALS, Completer, Replaced
from layrfs.ids import NodeId, ShardId
from layrfs.model.history import Segment
from layrfs.model.notes import CONTENT, Purpose
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.transfers import Slot
from layrfs.policy.silence import MOST_FAILURES
from layrfs.storage.database import Database
from layrfs.storage.trust import Trusts
from tests.fakes.one_record import OneRecord
from tests.fakes.transfers import FakeTransfers
from tests.unit.history.test_publishing import Clock, publisher

AWAY_SECONDS = 25.0
"""What a host that does not answer costs whoever asks it."""


class Transfers(FakeTransfers):
    """Remembers which shards were to get copies; those of ``dark`` are on hosts that do not answer."""

    def __init__(self) -> None:
        super().__init__(hosts=1)
        self.dark: set[ShardId] = set()
        self.tried: list[ShardId] = []
        self.asked = trio.Event()
        self.patience: float = AWAY_SECONDS

    async def top_up(
        self,
        shard: ShardRecord,
        slots: list[Slot],
        purpose: Purpose = CONTENT,
    ) -> tuple[PieceRecord, ...]:
        self.tried.append(shard.id)
        if shard.id in self.dark:
            self.asked.set()
            await trio.sleep(self.patience)
            raise Unavailable("No good copy of the shard can be reached.")
        return await super().top_up(shard, slots, purpose)


class Volume:
    """Its versions, each with segments of its own and some that it shares."""

    may_write = True

    def __init__(self, versions: list[tuple[Segment, ...]]) -> None:
        self._versions = versions
        self.amended: dict[int, Segment] = {}

    def chains(self) -> Iterator[tuple[Segment, ...]]:
        yield from self._versions

    async def amend(self, segment: Segment, _replaced: Replaced) -> None:
        await trio.lowlevel.checkpoint()
        self.amended[segment.number] = segment


async def shared_chains(transfers: Transfers, directory: Path, versions: int) -> Volume:
    """Made while one host was all there was."""
    with Database(str(directory / "metadata.db")) as database:
        clock, dice = Clock(), random.Random(1)
        publishing = publisher(database, transfers, OneRecord(), directory / "history", clock, lambda: transfers.hosts)
        chains = []
        for _ in range(versions):
            clock.now += 10
            database.write(
                "INSERT OR REPLACE INTO attribute VALUES(?, ?, ?)", (dice.randrange(500), b"a", dice.randbytes(200))
            )
            await publishing.publish()
            chains.append(publishing.segments)
        return Volume(chains[::-1])


def completer(transfers: Transfers) -> Completer:
    return Completer(transfers, lambda _host: False, lambda: transfers.hosts)


async def test_each_segment_is_tried_once_however_many_versions_share_it(tmp_path: Path) -> None:
    transfers = Transfers()
    volume = await shared_chains(transfers, tmp_path, 20)
    transfers.hosts = 3
    await completer(transfers).complete(volume)
    assert len(transfers.tried) == len(set(transfers.tried)) == len(volume.amended) == 20
    assert all(len(shard.pieces) == 3 for one in volume.amended.values() for shard in one.shards)


async def test_a_host_that_is_away_is_not_waited_for_again_and_again(tmp_path: Path, autojump_clock: object) -> None:
    transfers = Transfers()
    volume = await shared_chains(transfers, tmp_path, 20)
    transfers.dark = {shard.id for chain in volume.chains() for one in chain for shard in one.shards}
    transfers.hosts = 3
    await completer(transfers).complete(volume)
    assert len(transfers.tried) == MOST_FAILURES


async def test_one_segment_that_is_gone_does_not_keep_the_others_from_their_copies(
    tmp_path: Path, autojump_clock: object
) -> None:
    transfers = Transfers()
    volume = await shared_chains(transfers, tmp_path, 20)
    newest = next(volume.chains())[0]
    transfers.dark = {shard.id for shard in newest.shards}
    transfers.hosts = 3
    await completer(transfers).complete(volume)
    everything = {one.number for chain in volume.chains() for one in chain}
    assert volume.amended.keys() == everything - {newest.number}


async def test_where_no_host_takes_copies_the_pass_ends(tmp_path: Path) -> None:
    transfers = Transfers()
    volume = await shared_chains(transfers, tmp_path, 20)
    await Completer(transfers, lambda _host: False, lambda: 5).complete(volume)  # four of the five are full
    assert len(transfers.tried) == MOST_REFUSALS


async def test_copies_at_hosts_that_nobody_pays_any_more_are_made_elsewhere_while_they_are_there(
    tmp_path: Path,
) -> None:
    transfers = Transfers()
    transfers.hosts = 5
    volume = await shared_chains(transfers, tmp_path, 2)
    unpaid = transfers.living_hosts()
    transfers.hosts = 10
    with Database(str(tmp_path / "metadata.db")) as database:
        trusting = Trusting(Trusts(database), NodeId(bytes(20)), 1000.0, lambda _host: False, lambda: unpaid)
        for host in unpaid:
            trusting.trusts.heard(host, "passed")
        await Completer(transfers, trusting.is_going, lambda: transfers.hosts).complete(volume)
    holders = [{piece.host for piece in shard.pieces} for one in volume.amended.values() for shard in one.shards]
    assert holders == 2 * [transfers.living_hosts() - unpaid]


async def test_versions_go_out_meanwhile(tmp_path: Path) -> None:
    transfers = Transfers()
    transfers.patience = math.inf
    with Database(str(tmp_path / "metadata.db")) as database:
        publishing = publisher(database, transfers, OneRecord(), tmp_path / "history", hosts=lambda: transfers.hosts)
        database.write("INSERT INTO attribute VALUES(1, ?, ?)", (b"a", b"1"))
        await publishing.publish()
        transfers.dark = {shard.id for one in publishing.segments for shard in one.shards}
        transfers.hosts = 3
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publishing.complete)
            await transfers.asked.wait()
            database.write("INSERT INTO attribute VALUES(2, ?, ?)", (b"a", b"2"))
            with trio.fail_after(30):
                await publishing.publish()
            assert not publishing.is_behind
            nursery.cancel_scope.cancel()
