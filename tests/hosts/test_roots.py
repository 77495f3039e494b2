"""A volume's root record on real hosts over real TLS on loopback, among them hosts that are old, lie, or are gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import Unavailable
from layrfs.history import roots as roots_module
from layrfs.history.roots import Kept, Roots
from layrfs.ids import NodeId, VolumeId
from layrfs.model.records import HostAddress, NodeRecord
from layrfs.model.root_record import RootRecord, root_places
from layrfs.network.links import HostLinks, HostRefused
from layrfs.network.piece_server import Answer, Counts, Visit
from layrfs.wire import messages
from tests.fakes.hosts import FAR_FUTURE, FakeFinder
from tests.hosts.local_host import NETWORK, SECONDS, Fixed, LocalHost, local_host, serving

KEY, OTHER = bytes([1]) * 32, bytes([2]) * 32
HOSTS = 8


def signed(version: int, *, key: bytes = KEY, body: bytes = b"sealed") -> RootRecord:
    return RootRecord.sign(key, version=version, time_ms=version, body=body)


VOLUME = VolumeId(signed(1).volume)


def told(address: HostAddress, identity: NodeIdentity) -> NodeRecord:
    """What the network says about a host."""
    return NodeRecord.sign(
        identity, host=address.ip, udp_port=address.port, tcp_port=address.port, free_bytes=1, expires=FAR_FUTURE
    )


class World:
    """Some hosts, whoever knows them, and a volume's way to them."""

    def __init__(self, links: HostLinks, hosts: list[LocalHost]) -> None:
        self.links = links
        self.hosts = hosts
        self.finder = FakeFinder([told(host.address, host.identity) for host in hosts])
        self.roots = Roots(links, self.finder, VOLUME)

    def kept_by(self, host: LocalHost) -> bytes | None:
        return self.links.get_root(host.address, VOLUME, deadline_seconds=SECONDS)

    def put(self, host: LocalHost, record: RootRecord) -> None:
        self.links.put_root(host.address, record.to_bytes(), deadline_seconds=SECONDS)


@pytest.fixture
def links() -> Iterator[HostLinks]:
    links = HostLinks(NodeIdentity.generate(), NETWORK)
    yield links
    links.close()


@pytest.fixture
def world(tmp_path: Path, links: HostLinks) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(links, [stack.enter_context(local_host(tmp_path / str(number))) for number in range(HOSTS)])


async def nearest(finder: FakeFinder, count: int) -> set[NodeId]:
    """The hosts nearest to the volume's places."""
    found = [await finder.closest_hosts(place, count) for place in root_places(VOLUME)]
    return {host.node_id for hosts in found for host in hosts}


async def test_nobody_has_one_before_it_is_published(world: World) -> None:
    assert await world.roots.fetch() is None


async def test_the_nearest_hosts_keep_it_and_give_it_back(world: World) -> None:
    near = await nearest(world.finder, roots_module.COPIES_PER_PLACE)
    assert await world.roots.publish(signed(1)) == Kept(len(near), stale=False)
    kept = {host.identity.node_id: world.kept_by(host) for host in world.hosts}
    assert kept == {node: signed(1).to_bytes() if node in near else None for node in kept}
    assert await world.roots.publish(signed(1)) == Kept(len(near), stale=False), "the same again"
    assert await world.roots.publish(signed(2)) == Kept(len(near), stale=False)
    assert await world.roots.fetch() == signed(2)
    assert world.finder.suspected == []


async def test_one_host_with_the_newest_is_enough(world: World) -> None:
    await world.roots.publish(signed(1))
    near = await nearest(world.finder, roots_module.ASKED_PER_PLACE)
    world.put(next(host for host in world.hosts if host.identity.node_id in near), signed(2))
    assert await world.roots.fetch() == signed(2)


@pytest.mark.parametrize("newer", [signed(3), signed(2, body=b"written elsewhere")])
async def test_an_older_record_or_another_of_its_version_is_stale(world: World, newer: RootRecord) -> None:
    await world.roots.publish(newer)
    assert await world.roots.publish(signed(2)) == Kept(0, stale=True)
    assert await world.roots.fetch() == newer


async def test_a_record_replanted_in_another_spelling_does_not_make_the_owners_stale(world: World) -> None:
    data = signed(1).to_bytes()
    for host in world.hosts:
        with pytest.raises(HostRefused) as refusal:
            world.links.put_root(host.address, b"\xdc\x00\x05" + data[1:], deadline_seconds=SECONDS)
        assert refusal.value.reason == "bad root"
    kept = await world.roots.publish(signed(1))
    assert not kept.stale
    assert kept.hosts > 0


async def test_hosts_that_are_gone_are_not_counted_and_suspected(world: World) -> None:
    near = await nearest(world.finder, roots_module.COPIES_PER_PLACE)
    gone = next(host for host in world.hosts if host.identity.node_id in near)
    gone.server.close()
    assert await world.roots.publish(signed(1)) == Kept(len(near) - 1, stale=False)
    assert world.finder.suspected == [gone.identity.node_id]
    assert await world.roots.fetch() == signed(1)


async def test_nobody_answers_is_not_the_same_as_nobody_has_it(world: World) -> None:
    for host in world.hosts:
        host.server.close()
    asked = await nearest(world.finder, roots_module.ASKED_PER_PLACE)
    with pytest.raises(Unavailable):
        await world.roots.fetch()
    assert set(world.finder.suspected) == asked
    assert await world.roots.publish(signed(1)) == Kept(0, stale=False)


async def test_without_a_single_host(links: HostLinks) -> None:
    roots = Roots(links, FakeFinder(), VOLUME)
    assert await roots.publish(signed(1)) == Kept(0, stale=False)
    with pytest.raises(Unavailable):
        await roots.fetch()


async def test_a_silent_host_costs_its_deadline_only(links: HostLinks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots_module, "DEADLINE_SECONDS", 0.3)
    silent = Fixed(None)
    with serving(silent, Counts()) as host:
        world = World(links, [host])
        with pytest.raises(Unavailable):
            await world.roots.fetch()
        assert await world.roots.publish(signed(1)) == Kept(0, stale=False)
        silent.released.set()
    assert world.finder.suspected == [host.identity.node_id] * 2


FORGED = signed(99, key=OTHER).to_bytes().replace(signed(99, key=OTHER).volume, VOLUME)
LIES = {
    "a record that the volume has not signed": Answer(messages.RootFound(), FORGED),
    "half a record": Answer(messages.RootFound(), signed(99).to_bytes()[:-1]),
    "nothing": Answer(messages.RootFound()),
    "the record of another volume": Answer(messages.RootFound(), signed(99, key=OTHER).to_bytes()),
    "more than a record can be": Answer(messages.RootFound(), bytes(messages.ROOT_LIMIT_BYTES + 1)),
    "an answer to something else": Answer(messages.Stored()),
    "a refusal with a body": Answer(messages.Refused("missing"), b"body"),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lying_host_among_honest_ones(name: str, tmp_path: Path, links: HostLinks) -> None:
    with local_host(tmp_path) as honest, serving(Fixed(LIES[name]), Counts()) as liar:
        world = World(links, [honest, liar])
        world.put(honest, signed(4))
        assert await world.roots.fetch() == signed(4)


@pytest.mark.parametrize("name", LIES)
async def test_lies_alone_are_no_answer(name: str, links: HostLinks) -> None:
    with serving(Fixed(LIES[name]), Counts()) as liar:
        world = World(links, [liar])
        with pytest.raises(Unavailable):
            await world.roots.fetch()
        assert (await world.roots.publish(signed(4))).hosts == 0


class CallsStale(Fixed):
    """Calls every record stale and shows one, or none, as its reason."""

    def __init__(self, shown: RootRecord | None) -> None:
        super().__init__(Answer(messages.Refused("stale")))
        self.shown = shown

    def answer(self, visit: Visit, request: messages.Request, body: memoryview) -> Answer:
        """Shows, or refuses."""
        if isinstance(request, messages.GetRoot) and self.shown is not None:
            return Answer(messages.RootFound(), self.shown.to_bytes())
        return super().answer(visit, request, body)


@pytest.mark.parametrize("shown", [None, signed(3), signed(4), signed(9, key=OTHER)])
async def test_the_word_stale_alone_does_not_stop_the_owner(
    shown: RootRecord | None, tmp_path: Path, links: HostLinks
) -> None:
    with local_host(tmp_path) as honest, serving(CallsStale(shown), Counts()) as liar:
        world = World(links, [honest, liar])
        assert await world.roots.publish(signed(4)) == Kept(1, stale=False)
        assert world.finder.suspected == [liar.identity.node_id]


@pytest.mark.parametrize("shown", [signed(5), signed(4, body=b"written elsewhere")])
async def test_one_host_that_shows_why_is_enough(shown: RootRecord, tmp_path: Path, links: HostLinks) -> None:
    with local_host(tmp_path) as behind, serving(CallsStale(shown), Counts()) as newer:
        world = World(links, [behind, newer])
        assert await world.roots.publish(signed(4)) == Kept(1, stale=True)
        assert world.finder.suspected == []


async def test_a_host_that_is_full_is_no_suspect(links: HostLinks) -> None:
    with serving(Fixed(Answer(messages.Refused("full"))), Counts()) as host:
        world = World(links, [host])
        assert await world.roots.publish(signed(4)) == Kept(0, stale=False)
        assert world.finder.suspected == []


async def test_hosts_keep_records_over_a_restart(tmp_path: Path, links: HostLinks) -> None:
    identity = NodeIdentity.generate()
    with local_host(tmp_path, identity=identity) as host:
        assert await World(links, [host]).roots.publish(signed(5)) == Kept(1, stale=False)
    with local_host(tmp_path, identity=identity) as host:
        world = World(links, [host])
        assert await world.roots.fetch() == signed(5)
        assert await world.roots.publish(signed(4)) == Kept(0, stale=True)
