"""A host looks after a volume while its owner is away: real processes, upkeep's time compressed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from layrfs.crypto.keys import VolumeKeys
from tests.drive import FUSE_IS_THERE, Drive, HostNetwork, differences, kill, layrfs, processes_of, wait_for

pytestmark = pytest.mark.skipif(not FUSE_IS_THERE, reason="needs /dev/fuse")

HOSTS, DELEGATE = 8, 7
TEMPO = {"LAYRFS_TEMPO": "60"}
PATCH_AFTER = "patch_after=120"
"""Two seconds, in upkeep's time."""

HEARD_SECONDS = 90.0
"""Sooner than the owner itself would make what is lost."""

FILES = 2
PIECES = {"copies": 3, "coded": 4}
"""Of each shard, by folder."""


def node_id(hosts: HostNetwork, number: int) -> str:
    """As the host said when it started."""
    lines = Path(hosts.output(number)).read_text("utf-8").splitlines()
    return next(line.split()[1] for line in lines if line.startswith("host "))


def fill(directory: Path) -> None:
    """What will be on the drive: files in a folder of copies, and in one whose shards are coded."""
    for folder in PIECES:
        (directory / folder).mkdir(parents=True)
        for number in range(FILES):
            (directory / folder / f"file-{number}").write_bytes(os.urandom(300_000 + number))


def held(hosts: HostNetwork, numbers: list[int]) -> int:
    """How many pieces these hosts have."""
    return sum(len(hosts.piece_files(number)) for number in numbers)


def listed(drive: Drive) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(layrfs(drive.home, "delegate", "--list", "--json").stdout)["delegates"]
    return found


def memory_has(pid: int, wanted: list[bytes]) -> set[bytes]:
    """Which of these bytes are anywhere in the memory that a process can write to."""
    found: set[bytes] = set()
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            bounds, permissions = line.split()[:2]
            if permissions.startswith("rw"):
                first, end = (int(bound, 16) for bound in bounds.split("-"))
                with contextlib.suppress(OSError):
                    memory.seek(first)
                    data = memory.read(end - first)
                    found |= {one for one in wanted if one in data}
    return found


def check_cannot_read(directory: Path, hosts: HostNetwork) -> None:
    """A delegate at work has the mask key; neither its disk nor its processes have what it takes to read."""
    keys = VolumeKeys.from_phrase((directory / "phrase").read_text("utf-8"))
    secret = [keys.content, keys.digest_key, keys.root_private, b"file-0"]
    delegations = os.path.join(hosts.homes[DELEGATE], "data", "delegations")
    files = [os.path.join(top, name) for top, _, names in os.walk(delegations) for name in names]
    on_disk = b"".join(Path(path).read_bytes() for path in files)
    assert keys.mask in on_disk
    assert not any(one in on_disk for one in secret)
    processes = list(processes_of(hosts.homes[DELEGATE]))
    assert len(processes) > 1, "a host and its workers"
    found = set().union(*(memory_has(pid, [keys.mask, *secret[:3]]) for pid in processes))
    assert found == {keys.mask}


@contextlib.contextmanager
def stopped(pids: Collection[int]) -> Iterator[None]:
    """Processes that do nothing meanwhile."""
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            kill(pid, signal.SIGCONT)


def has_heard(drive: Drive, hosts: HostNetwork, files: list[str], lost: list[int]) -> bool:
    """Whether all pieces of these files are on record at hosts that live, once the delegate was asked again."""
    layrfs(drive.home, "delegate", node_id(hosts, DELEGATE))
    gone = [node_id(hosts, number) for number in lost]
    for path in files:
        (shard,) = drive.manifest(path)["shards"]
        places = {piece["host"] for piece in shard["pieces"]}
        if len(places) != PIECES[os.path.basename(os.path.dirname(path))] or not places.isdisjoint(gone):
            return False
    return True


def test_a_delegate_repairs_while_the_owner_is_away(tmp_path: Path) -> None:
    source = tmp_path / "source"
    fill(source)
    with HostNetwork(str(tmp_path), HOSTS, delegates={DELEGATE}, variables=TEMPO) as hosts:
        drive = Drive(str(tmp_path), seeds=hosts.seeds, options=[PATCH_AFTER])
        with drive:
            for folder in PIECES:
                (Path(drive.path) / folder).mkdir()
            layrfs(drive.home, "set", os.path.join(drive.path, "coded"), "redundancy=rs:2/4")
            for path in source.rglob("file-*"):
                (Path(drive.path) / path.relative_to(source)).write_bytes(path.read_bytes())
            drive.sync()
            refused = layrfs(drive.home, "delegate", f"127.0.0.1:{hosts.ports[0]}", check=False)
            assert refused.returncode != 0
            assert "layrfs host run --delegate" in refused.stderr
            assert listed(drive) == []
            layrfs(drive.home, "delegate", f"127.0.0.1:{hosts.ports[DELEGATE]}", "--until", "30d")
            (one,) = listed(drive)
            assert one["node"] == node_id(hosts, DELEGATE)
            assert (one["lies"], one["problem"]) == (0, "")
            before = held(hosts, list(range(HOSTS)))
            drive.umount()
            # The two that hold most, but for the seed that the owner finds the others by.
            lost = sorted(range(1, DELEGATE), key=lambda number: -len(hosts.piece_files(number)))[:2]
            gone = held(hosts, lost)
            assert gone
            for number in lost:
                hosts.kill(number)
            left = [number for number in range(HOSTS) if number not in lost]
            wait_for(lambda: held(hosts, left) >= before, lambda: f"{held(hosts, left)} of {before} pieces")
            with stopped(processes_of(hosts.homes[DELEGATE])):  # at work, it writes files and takes them away
                check_cannot_read(tmp_path, hosts)
            drive.mount()
            files = [os.path.join(drive.path, path.relative_to(source)) for path in source.rglob("file-*")]
            wait_for(lambda: has_heard(drive, hosts, files, lost), "the owner knows all that was made", HEARD_SECONDS)
            (one,) = listed(drive)
            assert (one["lies"], one["problem"]) == (0, "")
            drive.sync()
            drive.remount(emptied=True)
            assert differences(str(source), drive.path, "-r") == ""
            said = layrfs(drive.home, "delegate", "--revoke", node_id(hosts, DELEGATE)).stdout
            assert "has forgotten the volume" in said
            assert listed(drive) == []
            assert os.listdir(os.path.join(hosts.homes[DELEGATE], "data", "delegations")) == []
