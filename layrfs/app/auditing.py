"""``layrfs audit``: from the files below a path to their shards, and from hosts' answers to a report.

Owns the sums. Must not know how hosts are asked, or the command line. What grows with the volume yields now and then:
this runs beside the answers to the kernel.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

import trio

from layrfs.control.commands import Progress
from layrfs.ids import InodeNumber, NodeId, ShardId
from layrfs.model.audits import MOST_LISTED, AuditedHost, AuditedPiece, AuditReport, Level
from layrfs.model.shards import ShardRecord
from layrfs.model.status import ProgressReport
from layrfs.storage.audits import Rounds
from layrfs.storage.content import Catalog
from layrfs.storage.tree import Tree
from layrfs.storage.trust import Trusts
from layrfs.upkeep.auditor import Auditor, PieceResult
from layrfs.upkeep.holdings import Holdings

YIELD_EVERY = 64
OF_METADATA = b"(list of files)"
OF_THE_PAST = b"(kept for snapshots)"

IsUnsent = Callable[[InodeNumber], bool]
"""Whether something of a file is on no host yet."""


class Auditing:
    """One volume's."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        tree: Tree,
        rounds: Rounds,
        holdings: Holdings,
        trusts: Trusts,
        auditor: Auditor,
        root_keepers: Callable[[], Awaitable[int]],
    ) -> None:
        """``root_keepers`` answers how many hosts show the newest root record."""
        self._catalog = catalog
        self._tree = tree
        self._rounds = rounds
        self._holdings = holdings
        self._trusts = trusts
        self._auditor = auditor
        self._root_keepers = root_keepers

    async def audit(
        self, inodes: Sequence[InodeNumber], level: Level, is_unsent: IsUnsent, progress: Progress, *, whole: bool
    ) -> AuditReport:
        """Of these files; with ``whole``, of all else that the volume has on hosts as well."""
        needed_by, files, unsent = await self._look(inodes, is_unsent)
        others = [number for number in self._rounds.shard_numbers() if number not in needed_by] if whole else []
        metadata = self._holdings.metadata_shards() if whole else []
        tally = _Tally(len(needed_by) + len(others) + len(metadata), progress)
        await self._auditor.audit(tally.noted(self._shards([*needed_by, *others], metadata)), level, tally.heard)
        return AuditReport(
            level=level,
            files=files,
            unsent_files=unsent,
            shards=len(tally.needed),
            short_shards=tally.short_shards(),
            outcomes=dict(tally.outcomes),
            hosts=self._hosts(tally),
            pieces=tuple(await self._listed(tally, needed_by)),
            left_off=tally.left_off(),
            root_keepers=await self._root_keepers() if whole and tally.needed else None,
        )

    async def _look(
        self, inodes: Sequence[InodeNumber], is_unsent: IsUnsent
    ) -> tuple[dict[int, InodeNumber], int, int]:
        """Shards, each with a file that needs it; how many files have any, and how many something that is only here."""
        needed_by: dict[int, InodeNumber] = {}
        files = unsent = 0
        for count, inode in enumerate(inodes):
            shards = list(self._catalog.shards_of(inode))
            for shard in shards:
                needed_by.setdefault(shard, inode)
            files += bool(shards)
            unsent += is_unsent(inode)
            if count % YIELD_EVERY == 0:
                await trio.lowlevel.checkpoint()
        return needed_by, files, unsent

    def _shards(self, numbers: Iterable[int], metadata: Iterable[ShardRecord]) -> Iterator[ShardRecord]:
        """One after the other, as they are when their turn comes."""
        yield from (self._catalog.shard(number) for number in numbers if self._catalog.has_shard(number))
        yield from metadata

    def _hosts(self, tally: _Tally) -> tuple[AuditedHost, ...]:
        return tuple(
            AuditedHost(host.hex(), self._trusts.standing(host), dict(outcomes))
            for host, outcomes in sorted(tally.hosts.items())
        )

    async def _listed(self, tally: _Tally, needed_by: dict[int, InodeNumber]) -> list[AuditedPiece]:
        listed = []
        metadata = {shard.id for shard in self._holdings.metadata_shards()}
        for count, result in enumerate(tally.listed()):
            path = OF_METADATA if result.shard in metadata else self._path(result.shard, needed_by)
            listed.append(_shown(result, path))
            if count % YIELD_EVERY == 0:
                await trio.lowlevel.checkpoint()
        return listed

    def _path(self, shard: ShardId, needed_by: dict[int, InodeNumber]) -> bytes:
        inode = needed_by.get(self._catalog.number_of(shard) or 0)
        return OF_THE_PAST if inode is None else self._tree.path_of(inode) or OF_THE_PAST


class _Tally:
    """What was heard so far."""

    def __init__(self, shards: int, progress: Progress) -> None:
        self._shards = shards
        self._progress = progress
        self._good: list[PieceResult] = []
        self._bad: list[PieceResult] = []
        self._readable: Counter[ShardId] = Counter()
        self.needed: dict[ShardId, int] = {}
        self.outcomes: Counter[str] = Counter()
        self.hosts: defaultdict[NodeId, Counter[str]] = defaultdict(Counter)

    def noted(self, shards: Iterable[ShardRecord]) -> Iterator[ShardRecord]:
        """The same shards, counted as they go by."""
        for shard in shards:
            self.needed[shard.id] = shard.redundancy.needed
            yield shard

    def heard(self, result: PieceResult) -> None:
        """One more answer."""
        self.outcomes[result.outcome] += 1
        self.hosts[result.host][result.outcome] += 1
        self._readable[result.shard] += result.outcome in {"passed", "unknown"}
        kept = self._good if result.outcome == "passed" else self._bad
        if len(kept) < MOST_LISTED:
            kept.append(result)
        asked = f"{self.outcomes.total():,} pieces asked for, {len(self.needed):,} of {self._shards:,} shards begun"
        bad = self.outcomes.total() - self.outcomes["passed"]
        self._progress(ProgressReport(text=f"{asked}, {bad:,} did not pass" if bad else asked))

    def listed(self) -> list[PieceResult]:
        """Those that did not pass first."""
        return [*self._bad, *self._good][:MOST_LISTED]

    def left_off(self) -> int:
        """How many are not listed."""
        return self.outcomes.total() - len(self.listed())

    def short_shards(self) -> int:
        """Of which more pieces did not pass than can be done without."""
        return sum(self._readable[shard] < needed for shard, needed in self.needed.items())


def _shown(result: PieceResult, path: bytes) -> AuditedPiece:
    return AuditedPiece(
        path=path,
        shard=result.shard.hex(),
        position=result.position,
        piece=result.piece.hex(),
        host=result.host.hex(),
        level=result.level,
        outcome=result.outcome,
        seconds=round(result.seconds, 4),
    )
