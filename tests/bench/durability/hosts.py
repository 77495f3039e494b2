"""A host, a shard and a result, as the simulation has them; nothing happens here."""

import math
from dataclasses import dataclass, field

import msgspec

from layrfs.model.records import NodeRecord
from layrfs.model.redundancy import Redundancy
from layrfs.policy.patching import PieceState
from layrfs.policy.trust import NEW_HOST, PRESENCE_MEMORY_SECONDS, Trust
from tests.bench.durability.world import HOUR, Kind


@dataclass(slots=True, eq=False)
class Host:
    """One identity. `held`: shards and positions that the owner believes it has, which it may not."""

    record: NodeRecord
    kind: Kind
    subnet: int
    trust: Trust = NEW_HOST
    state: PieceState = "good"
    alive: bool = True
    session_on: bool = True
    online: bool = True
    watched: bool = False
    since: int = 0
    """Counts changes of `online`: an event of another count is of the past."""

    held: dict["Shard", int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Shard:
    """`there`: positions that really exist, whatever the owner believes."""

    holders: dict[int, Host] = field(default_factory=dict)
    there: set[int] = field(default_factory=set)
    life: int = 0
    busy: bool = False
    queued: bool = False


@dataclass(slots=True)
class Result:
    """What came of it, in sums over all shards."""

    redundancy: Redundancy
    shard_years: float = 0.0
    losses: int = 0
    patches: int = 0
    made_anew: int = 0
    read_bytes: float = 0.0
    written_bytes: float = 0.0
    asked: int = 0
    readable: int = 0
    busy_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, other: "Result") -> None:
        """Another network of the same sort."""
        for name in self.__slots__[1:]:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def present_until(trust: Trust, until: float) -> Trust:
    """The same as asking every hour since it was last asked, and passing each time, in one step (test)."""
    asked = trust.asked_at if trust.asked_at is not None else until
    gap = max(0.0, until - asked)
    kept = math.exp(-gap / PRESENCE_MEMORY_SECONDS)
    step = min(HOUR, gap) or 1.0
    share = step / (1 - math.exp(-step / PRESENCE_MEMORY_SECONDS))
    return msgspec.structs.replace(
        trust,
        present_seconds=trust.present_seconds * kept + share * (1 - kept),
        absent_seconds=trust.absent_seconds * kept,
        habit_seconds=trust.habit_seconds * kept,
        passed=trust.passed + gap / HOUR,
        asked_at=max(asked, until),
    )
