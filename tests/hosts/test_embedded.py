"""The embedded network as a process: five hosts, one lock, and an end that follows its parent's."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from layrfs.crypto import merkle
from layrfs.crypto.identity import NodeIdentity
from layrfs.host.directory import HostDirectory
from layrfs.model.records import HostAddress
from layrfs.network.links import HostLinks
from tests.hosts.processes import SECONDS, Child, child, wait_for

TENANT = bytes([9]) * 32
DATA = bytes(range(256)) * 1000
PIECE = merkle.piece_id(DATA)


def embedded(directory: Path) -> AbstractContextManager[Child]:
    return child("-m", "layrfs.app.embedded", str(directory), home=directory / "unused")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Child]:
    with embedded(tmp_path) as network:
        network.says("ready")
        yield network


def published(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "seeds.json").read_text())
    return found


def hosts_of(directory: Path) -> list[HostAddress]:
    seeds = published(directory)["seeds"]
    homes = [HostDirectory(str(directory / f"host-{number}")) for number in range(5)]
    return [
        HostAddress(home.existing_identity().node_id, "127.0.0.1", int(seed.rpartition(":")[2]))
        for home, seed in zip(homes, seeds, strict=True)
    ]


def links_to(directory: Path) -> HostLinks:
    return HostLinks(NodeIdentity.generate(), bytes.fromhex(published(directory)["network_id"]))


def test_five_real_hosts_on_loopback(running: Child, tmp_path: Path) -> None:
    hosts = hosts_of(tmp_path)
    links = links_to(tmp_path)
    assert len({host.node_id for host in hosts}) == len({host.port for host in hosts}) == 5
    for host in hosts:
        links.store(host, PIECE, DATA, tenant_private=TENANT, deadline_seconds=SECONDS)
        assert links.retrieve(host, PIECE, deadline_seconds=SECONDS) == DATA
    links.close()
    assert len(list(tmp_path.glob(f"host-*/pieces/*/{PIECE.hex()}"))) == 5
    assert running.lines == ["ready"]
    assert not (tmp_path / "ledger").exists(), "nobody asked for money"


def test_they_find_each_other(running: Child, tmp_path: Path) -> None:
    wait_for(lambda: (tmp_path / "log").read_text().count("joined the network") >= 4, "joined")
    assert running.end() == 0
    everybody = {host.port for host in hosts_of(tmp_path)}
    for number, host in enumerate(hosts_of(tmp_path)):
        peers = {int(peer.rpartition(":")[2]) for peer in HostDirectory(str(tmp_path / f"host-{number}")).peers()}
        assert peers
        assert peers <= everybody - {host.port}


def test_it_ends_with_its_parent(running: Child) -> None:
    running.close_input()
    assert running.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_a_signal(running: Child, number: int) -> None:
    assert running.end(number) == 0


def test_the_same_hosts_on_the_same_ports_after_a_crash(tmp_path: Path) -> None:
    with embedded(tmp_path) as network:
        network.says("ready")
        before, network_id = hosts_of(tmp_path), published(tmp_path)["network_id"]
        links = links_to(tmp_path)
        links.store(before[0], PIECE, DATA, tenant_private=TENANT, deadline_seconds=SECONDS)
        network.end(signal.SIGKILL)
    with embedded(tmp_path) as network:
        network.says("ready")
        assert (hosts_of(tmp_path), published(tmp_path)["network_id"]) == (before, network_id)
        assert links.retrieve(before[0], PIECE, deadline_seconds=SECONDS) == DATA
        links.close()


def test_a_port_that_is_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    with embedded(tmp_path) as network:
        network.says("ready")
        network.end()
    before = hosts_of(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", before[2].port))
        taken.listen()
        with embedded(tmp_path) as network:
            network.says("ready")
            after = hosts_of(tmp_path)
    assert [host.node_id for host in after] == [host.node_id for host in before]
    assert after[2].port != before[2].port
    assert after[0] == before[0]


def test_a_second_process_stands_by_and_takes_over(running: Child, tmp_path: Path) -> None:
    before = hosts_of(tmp_path)
    with embedded(tmp_path) as second:
        second.says("standby")
        assert second.lines == ["standby"]
        running.end(signal.SIGKILL)
        second.says("ready")
        assert hosts_of(tmp_path) == before
        links = links_to(tmp_path)
        assert links.has(before[0], [PIECE]) == [False]
        links.close()


def test_a_standby_ends_with_its_parent(running: Child, tmp_path: Path) -> None:
    with embedded(tmp_path) as second:
        second.says("standby")
        second.close_input()
        assert second.ended() == 0
    assert running.process.poll() is None


def test_a_directory_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with embedded(tmp_path / "file" / "below") as network:
        assert network.ended() == 1
    assert len(network.lines) == 1
    assert "cannot be used: Not a directory" in network.lines[0]
