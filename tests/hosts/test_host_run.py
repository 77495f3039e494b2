"""`layrfs host run` and `host status` as processes: starting, joining, being killed, starting again, bad input."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from layrfs.crypto import merkle
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import RemoteError
from layrfs.host.directory import HostDirectory
from layrfs.ids import PieceId
from layrfs.model.records import HostAddress
from layrfs.network.links import HostLinks
from tests.hosts.processes import REPOSITORY, SECONDS, Child, child, wait_for

TENANT = bytes([9]) * 32


def host_run(directory: Path, *arguments: str) -> AbstractContextManager[Child]:
    return child("-m", "layrfs.cli.main", "host", "run", "--dir", str(directory), *arguments, home=directory / "unused")


def first_host(directory: Path, *arguments: str) -> AbstractContextManager[Child]:
    return host_run(directory, "--space", "1G", "--listen", "127.0.0.1:0", *arguments)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "layrfs.cli.main", "host", *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


def address_of(directory: Path) -> HostAddress:
    home = HostDirectory(str(directory))
    settings = home.settings()
    assert settings is not None
    return HostAddress(home.existing_identity().node_id, "127.0.0.1", settings.port)


def seed_of(directory: Path) -> str:
    return f"127.0.0.1:{address_of(directory).port}"


def network_of(directory: Path) -> bytes:
    settings = HostDirectory(str(directory)).settings()
    assert settings is not None
    return bytes.fromhex(settings.network_id)


def links_to(directory: Path) -> HostLinks:
    return HostLinks(NodeIdentity.generate(), network_of(directory))


def piece_of(seed: int, size: int = 1 << 20) -> tuple[PieceId, bytes]:
    data = random.Random(seed).randbytes(size)
    return merkle.piece_id(data), data


def store(links: HostLinks, address: HostAddress, seed: int) -> PieceId:
    piece, data = piece_of(seed)
    links.store(address, piece, data, tenant_private=TENANT, deadline_seconds=SECONDS)
    return piece


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Child, Path]]:
    with first_host(tmp_path / "first") as host:
        host.says("ready")
        yield host, tmp_path / "first"


def test_what_it_says_is_what_others_need(running: tuple[Child, Path]) -> None:
    host, directory = running
    address = address_of(directory)
    assert host.says("host").split()[1] == address.node_id.hex()
    assert host.says("network").split()[1] == network_of(directory).hex()
    assert seed_of(directory) in host.says("listening")
    assert f"--seed {seed_of(directory)}" in host.says("more hosts join")


def test_it_serves_and_tells_how_it_does(running: tuple[Child, Path]) -> None:
    _, directory = running
    links = links_to(directory)
    piece = store(links, address_of(directory), 1)
    assert links.retrieve(address_of(directory), piece, deadline_seconds=SECONDS) == piece_of(1)[1]
    links.close()
    report = json.loads(command("status", "--dir", str(directory), "--json").stdout)
    assert (report["pieces"], report["requests"]["store"], report["dropped"]) == (1, 1, {})
    page = command("status", "--dir", str(directory))
    assert page.returncode == 0
    assert "1 piece" in page.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(running: tuple[Child, Path], number: int) -> None:
    host, directory = running
    links = links_to(directory)
    store(links, address_of(directory), 1)
    assert host.end(number) == 0
    links.close()
    assert host.lines[-1] == "stopped"
    status = command("status", "--dir", str(directory))
    assert (status.returncode, status.stdout) == (3, "")
    assert "is not running" in status.stderr


def test_killed_it_starts_again_with_everything_it_acknowledged(tmp_path: Path) -> None:
    directory = tmp_path / "host"
    acknowledged: list[PieceId] = []
    with first_host(directory) as host:
        host.says("ready")
        before = address_of(directory), network_of(directory)
        links = links_to(directory)
        storing = threading.Thread(target=store_until_it_fails, args=(links, before[0], acknowledged))
        storing.start()
        wait_for(lambda: len(acknowledged) >= 20, "some pieces are stored")
        host.end(signal.SIGKILL)
        storing.join(SECONDS)
    with host_run(directory) as host:
        host.says("ready")
        assert (address_of(directory), network_of(directory)) == before, "same node, same network, same port"
        assert (directory / "incoming").exists()
        assert list((directory / "incoming").iterdir()) == []
        assert links.has(before[0], acknowledged) == [True] * len(acknowledged)
        for seed, piece in enumerate(acknowledged):
            assert links.retrieve(before[0], piece, deadline_seconds=SECONDS) == piece_of(seed)[1]
        assert links.has(before[0], [piece_of(0)[0]]) == [True]
        links.close()


def store_until_it_fails(links: HostLinks, address: HostAddress, acknowledged: list[PieceId]) -> None:
    with contextlib.suppress(RemoteError):
        acknowledged.extend(store(links, address, seed) for seed in range(10_000))


def test_a_second_host_joins_through_the_first(running: tuple[Child, Path], tmp_path: Path) -> None:
    _, first = running
    second = tmp_path / "second"
    with first_host(second, "--seed", seed_of(first)) as host:
        host.says("ready")
        assert network_of(second) == network_of(first)
        wait_for(lambda: any("joined the network" in line for line in host.lines), "joined")
        assert host.end() == 0
    assert HostDirectory(str(second)).peers() == [seed_of(first)]


def test_the_first_host_finds_its_network_again_without_a_seed(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with first_host(first) as one:
        one.says("ready")
        with first_host(second, "--seed", seed_of(first)) as two:
            two.says("ready")
            wait_for(lambda: HostDirectory(str(first)).peers() == [seed_of(second)], "one has noticed and noted two")
            assert one.end() == 0
            with host_run(first) as again:
                again.says("ready")
                wait_for(lambda: any("joined" in line for line in again.lines), "one is back in the network")


def test_damage_is_found_by_itself_after_a_start(tmp_path: Path) -> None:
    directory = tmp_path / "host"
    with first_host(directory) as host:
        host.says("ready")
        links = links_to(directory)
        piece = store(links, address_of(directory), 1)
        links.close()
        host.end()
    path = directory / "pieces" / piece.hex()[:2] / piece.hex()
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with host_run(directory) as host:
        host.says("ready")
        wait_for(lambda: not path.exists(), "the damaged piece is set aside")
        assert (directory / "quarantine" / piece.hex()).exists()


def test_the_directory_is_taken(running: tuple[Child, Path]) -> None:
    _, directory = running
    refused = command("run", "--dir", str(directory))
    assert refused.returncode == 9
    assert refused.stderr == f"layrfs: another process runs the host in {directory}\n"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_the_port_is_taken(tmp_path: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = command("run", "--dir", str(tmp_path / "host"), "--space", "1G", "--listen", listen)
    assert refused.returncode == 9
    assert f"{listen} is already in use" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_newer_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text('{"version": 99}')
    refused = command("run", "--dir", str(tmp_path), "--space", "1G")
    assert refused.returncode == 8
    assert "newer LayrFS" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["host.json"]


def test_another_network_than_before(running: tuple[Child, Path]) -> None:
    host, directory = running
    host.end()
    refused = command("run", "--dir", str(directory), "--network", "00" * 32)
    assert refused.returncode == 2
    assert "belongs to another network" in refused.stderr


BAD_COMMANDS = [
    (["run", "--dir", "/proc/nowhere", "--space", "1G"], 1, "cannot be used"),
    (["run", "--dir", "{}/new"], 2, "--space"),
    (["run", "--dir", "{}", "--space", "much"], 2, "no size"),
    (["run", "--dir", "{}", "--space", "1G", "--listen", "here"], 2, "no address"),
    (["run", "--dir", "{}", "--space", "1G", "--listen", "192.0.2.1:4747"], 2, "cannot listen"),
    (["run", "--dir", "{}", "--space", "1G", "--network", "abc"], 2, "hexadecimal"),
    (["run", "--dir", "{}", "--space", "1G", "--announce", "my.house"], 2, "takes an IP address"),
    (["status", "--dir", "{}/nowhere"], 3, "there is no host"),
    (["rest"], 2, "invalid choice"),
]


@pytest.mark.parametrize(("arguments", "code", "sentence"), BAD_COMMANDS)
def test_what_makes_no_sense_is_one_sentence(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    refused = command(*[argument.format(tmp_path) for argument in arguments])
    assert refused.returncode == code
    assert sentence in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()
