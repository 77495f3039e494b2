"""The lease as it is published: renewed, given back, lost; and of two machines that race one wins."""

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from layrfs.app.handing_over import claim
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import ReadOnly, Superseded, Unavailable, VolumeHeld
from layrfs.history.leasing import Conduct, Tenure, history_of
from layrfs.history.publishing import Publisher
from layrfs.ids import NodeId
from layrfs.model.history import Lease
from layrfs.policy.leasing import LEASE_SECONDS, RENEWAL_SECONDS
from layrfs.storage.database import Database
from layrfs.storage.versions import Versions
from tests.fakes.roots import FakeRoots
from tests.fakes.transfers import FakeTransfers

KEYS = VolumeKeys(bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32, bytes([4]) * 32)
EPOCH = 1_700_000_000


def now() -> float:
    """Every machine's clock."""
    return EPOCH + trio.current_time()


class Machine:
    """A state directory with its publisher."""

    def __init__(self, place: Path, name: str, roots: FakeRoots, conduct: Conduct) -> None:
        self.name, self.lost = name, list[str]()
        self.device = NodeId(name.encode().ljust(20, b"."))
        self._place, self._roots, self._conduct = place, roots, conduct
        place.mkdir()
        self.start()
        self.database.write("INSERT INTO volume VALUES('id', ?)", (KEYS.volume_id,))

    def start(self) -> None:
        """A mount's publisher, on what is on the disk."""
        self.transfers = FakeTransfers()
        self.database = Database(str(self._place / "metadata.db"))
        tenure = Tenure(
            device=self.device, name=self.name, keys=KEYS, roots=self._roots, conduct=self._conduct, now=now
        )
        self.publisher = Publisher(
            database=self.database,
            transfers=self.transfers,
            roots=self._roots,
            keys=KEYS,
            directory=str(self._place / "history"),
            tenure=tenure,
            on_superseded=self.lost.append,
            now=now,
        )

    def restart(self) -> None:
        """The next mount."""
        self.database.close()
        self.start()

    def change(self, value: int) -> None:
        self.database.write("INSERT OR REPLACE INTO volume VALUES('x', ?)", (value,))


Make = Callable[..., Machine]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Machines, closed at the end."""
    made: list[Machine] = []

    def machine(name: str, roots: FakeRoots, conduct: Conduct = "write") -> Machine:
        made.append(Machine(tmp_path / f"{len(made)}", name, roots, conduct))
        return made[-1]

    yield machine
    for each in made:
        each.database.close()


def lease_of(roots: FakeRoots) -> Lease:
    assert roots.newest is not None
    lease = history_of(roots.newest, KEYS).lease
    assert lease is not None
    return lease


def share(source: Machine, target: Machine) -> None:
    """``target`` has what ``source`` last published, as after `layrfs recover`."""
    for name in ("history", "root", "published"):
        (value,) = source.database.row("SELECT value FROM local_mark WHERE name = ?", (name,)) or (None,)
        target.database.write("INSERT OR REPLACE INTO local_mark VALUES(?, ?)", (name, value))


async def test_an_idle_writer_renews_its_lease_and_nothing_else(make: Make, mock_clock: MockClock) -> None:
    roots = FakeRoots()
    laptop = make("laptop", roots)
    await laptop.publisher.publish()
    uploads, first = len(laptop.transfers.uploads), lease_of(roots)
    assert (first.name, first.device) == ("laptop", laptop.device)
    for _ in range(40):
        mock_clock.jump(RENEWAL_SECONDS / 10)
        await laptop.publisher.publish()
        assert RENEWAL_SECONDS < lease_of(roots).until_ms / 1000 - now() <= LEASE_SECONDS
    assert roots.newest is not None
    assert roots.newest.version == 1 + 4, "one in five minutes"
    assert len(laptop.transfers.uploads) == uploads, "no segment for a lease"
    laptop.change(1)
    await laptop.publisher.publish()
    assert [version.number for version in Versions(laptop.database).all()] == [1], "a renewal is no version to retain"


async def test_what_is_left_is_published_when_the_lease_is_given_back(make: Make) -> None:
    roots = FakeRoots()
    laptop = make("laptop", roots)
    await laptop.publisher.publish()
    laptop.change(1)
    await laptop.publisher.release()
    assert lease_of(roots).until_ms == 0
    assert not laptop.publisher.is_behind
    await laptop.publisher.publish()
    assert lease_of(roots).until_ms == 0, "and not taken again"


async def test_an_offline_writer_looks_before_it_publishes(make: Make) -> None:
    roots = FakeRoots()
    laptop, desk = make("laptop", roots), make("desk", roots)
    await laptop.publisher.publish()
    share(laptop, desk)
    desk.restart()
    await desk.publisher.claim()
    before = roots.newest
    laptop.change(1)
    laptop.restart()
    with pytest.raises(Superseded, match="desk has taken over"):
        await laptop.publisher.publish()
    assert laptop.transfers.uploads == [], "no segment is sent for nothing"
    assert roots.newest == before
    assert len(laptop.lost) == 1
    assert laptop.publisher.is_behind, "what is only here is known to be"


async def test_who_is_taken_over_hears_it_with_the_next_publication(make: Make) -> None:
    roots = FakeRoots()
    laptop, desk = make("laptop", roots), make("desk", roots)
    await laptop.publisher.publish()
    share(laptop, desk)
    desk.restart()
    await desk.publisher.claim()
    laptop.change(1)
    for _ in range(2):
        with pytest.raises(Superseded, match="desk has taken over"):
            await laptop.publisher.publish()
    assert len(laptop.lost) == 1, "said once"
    with pytest.raises(Superseded):
        await laptop.publisher.release()
    assert lease_of(roots).name == "desk"


async def test_a_claim_that_no_host_hears_is_made_later(make: Make) -> None:
    roots = FakeRoots()
    laptop = make("laptop", roots)
    await laptop.publisher.publish()
    await laptop.publisher.release()
    laptop.restart()
    roots.silent = {0, 1, 2}
    await claim(laptop.publisher, "default")
    with pytest.raises(Unavailable):
        await laptop.publisher.publish()
    assert not laptop.publisher.is_behind, "hosts have all files"
    roots.silent = set()
    await laptop.publisher.publish()
    assert lease_of(roots).until_ms > 0


@pytest.mark.parametrize("conduct", ["finish", "watch"])
async def test_a_read_only_mount_never_claims(make: Make, conduct: Conduct) -> None:
    roots = FakeRoots()
    laptop = make("laptop", roots)
    await laptop.publisher.publish()
    await laptop.publisher.release()
    reader = make("laptop", roots, conduct)
    share(laptop, reader)
    reader.change(1)
    reader.restart()
    await reader.publisher.publish()
    await reader.publisher.release()
    assert lease_of(roots).until_ms == 0
    assert roots.newest is not None
    if conduct == "watch":
        assert roots.newest.version == 2, "and says nothing at all"
        assert not reader.publisher.is_behind
        with pytest.raises(ReadOnly):
            await reader.publisher.retain("mine")


@pytest.mark.parametrize("seed", range(40))
async def test_of_two_machines_that_claim_at_once_exactly_one_writes(
    make: Make, seed: int, autojump_clock: object
) -> None:
    dice = random.Random(seed)

    async def pause() -> None:
        await trio.sleep(dice.random())

    roots = FakeRoots(hosts=5, pause=pause)
    first = make("first", roots)
    await first.publisher.publish()
    await first.publisher.release()
    racing = [make(name, roots) for name in ("laptop", "desk")]
    for machine in racing:
        share(first, machine)
        machine.restart()
    lost: list[str] = []

    async def race(machine: Machine) -> None:
        await trio.sleep(dice.random() * dice.choice([0, 1, 3]))
        try:
            await claim(machine.publisher, "default")
        except VolumeHeld:
            lost.append(machine.name)

    async with trio.open_nursery() as nursery:
        for machine in racing:
            nursery.start_soon(race, machine)
    assert len(lost) == 1
    (winner,) = (machine for machine in racing if machine.name not in lost)
    winner.change(1)
    await winner.publisher.publish()
    await winner.publisher.publish()
    assert lease_of(roots).name == winner.name
    assert len({record.signature for record in roots.kept if record is not None}) == 1, "on every host"
