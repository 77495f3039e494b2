"""`layrfs gc` with real hosts: what is needed by nothing leaves their disks, and nothing else does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.drive import Drive, Failed, HostNetwork, environment, layrfs, piece_files, wait_for
from tests.trees import MIB

TOGETHER = 40
"""Small files that travel in one shard."""


def collect(drive: Drive, *arguments: str) -> dict[str, Any]:
    """`layrfs gc`, with no time for readers of older lists."""
    answer: dict[str, Any] = json.loads(layrfs(drive.home, "gc", "--json", "--retention", "0", *arguments).stdout)
    return answer


def forget_versions(drive: Drive, *kept: str) -> None:
    """Delete every snapshot that was retained by itself."""
    for snapshot in json.loads(layrfs(drive.home, "snapshot", "list", "--json").stdout):
        if snapshot["name"] not in kept:
            layrfs(drive.home, "snapshot", "delete", snapshot["name"])


def collect_all(drive: Drive, is_enough: Callable[[], bool], *kept: str) -> None:
    """Again and again: the version before a collection is retained by it, and may need what was deleted just then.

    So is one that the drive publishes by itself meanwhile.
    """

    def collected() -> bool:
        drive.sync()
        forget_versions(drive, *kept)
        collect(drive)
        return is_enough()

    wait_for(collected, "what nothing needs is gone")


def stored(hosts: HostNetwork) -> int:
    """Bytes of pieces on all hosts' disks."""
    return sum(os.path.getsize(path) for home in hosts.homes for path in piece_files(home))


def filled(drive: Drive, name: str, megabytes: int = 6) -> bytes:
    """A new file on hosts."""
    data = os.urandom(megabytes * MIB)
    Path(drive.path, name).write_bytes(data)
    drive.sync()
    return data


def test_what_was_deleted_leaves_the_hosts_and_a_snapshot_keeps_what_it_needs(
    hosts: HostNetwork, tmp_path: Path
) -> None:
    with Drive(str(tmp_path), seeds=hosts.seeds) as drive:
        kept, old = filled(drive, "kept"), filled(drive, "old")
        layrfs(drive.home, "snapshot", "create", "before")
        filled(drive, "new")
        for name in ("old", "new"):
            os.unlink(os.path.join(drive.path, name))
        drive.sync()
        check_dry_run(drive, hosts)
        before = stored(hosts)
        collect_all(drive, lambda: before - stored(hosts) > 3 * 5 * MIB, "before")
        after_first = stored(hosts)
        drive.drop_cache()
        assert Path(drive.path, "kept").read_bytes() == kept
        assert Path(drive.path, ".snapshots", "before", "old").read_bytes() == old
        layrfs(drive.home, "snapshot", "delete", "before")
        collect_all(drive, lambda: after_first - stored(hosts) > 3 * 5 * MIB and drive.status()["deleted_bytes"] == 0)
        drive.drop_cache()
        assert Path(drive.path, "kept").read_bytes() == kept
        assert drive.status()["problems"] == []


def check_dry_run(drive: Drive, hosts: HostNetwork) -> None:
    """It finds what nothing needs and what waits for the snapshot `before`, and changes nothing.

    Tried until the drive does not publish meanwhile that others were forgotten, and retain one more by that.
    """
    found: dict[str, Any] = {}

    def nothing_has_changed() -> bool:
        forget_versions(drive, "before")
        before = stored(hosts), drive.status()["published_version"]
        found.update(collect(drive, "--dry-run"))
        return before == (stored(hosts), drive.status()["published_version"]) and found["dead_bytes"] >= 3 * 6 * MIB

    wait_for(nothing_has_changed, lambda: f"a dry run that changes nothing: {found}")
    assert [(one["name"], one["stored_bytes"] >= 3 * 6 * MIB) for one in found["waiting"]] == [("before", True)]


def test_what_is_left_of_a_shard_moves_and_equal_bytes_are_stored_again(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path), seeds=hosts.seeds) as drive:
        contents = {f"small{number}": os.urandom(MIB // 16) for number in range(TOGETHER)}
        for name, data in contents.items():
            Path(drive.path, name).write_bytes(data)
        drive.sync()
        for name in list(contents)[3:]:
            os.unlink(os.path.join(drive.path, name))
        drive.sync()
        forget_versions(drive)
        before = stored(hosts)
        assert collect(drive)["repacked_shards"] == 1
        collect_all(drive, lambda: before - stored(hosts) > 3 * MIB)
        drive.drop_cache()
        for name in list(contents)[:3]:
            assert Path(drive.path, name).read_bytes() == contents[name]
        gone = list(contents)[10]
        Path(drive.path, gone).write_bytes(contents[gone])
        drive.sync()
        drive.drop_cache()
        assert Path(drive.path, gone).read_bytes() == contents[gone]


def test_a_collection_that_is_killed_loses_nothing(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path), seeds=hosts.seeds) as drive:
        kept = filled(drive, "kept")
        for point in ("shards marked", "shards removed", "retired pieces dropped"):
            filled(drive, "gone", 1)
            os.unlink(os.path.join(drive.path, "gone"))
            drive.umount()
            armed(drive, point, str(tmp_path / point.replace(" ", "-")))
            with pytest.raises(Failed):
                collect_all(drive, lambda: False)
            assert drive.process is not None
            assert drive.process.wait() == -signal.SIGKILL, point
            drive.crash()
            drive.mount()
            drive.drop_cache()
            assert Path(drive.path, "kept").read_bytes() == kept
        collect_all(drive, lambda: stored(hosts) < 3 * 7 * MIB)
        drive.drop_cache()
        assert Path(drive.path, "kept").read_bytes() == kept


def armed(drive: Drive, point: str, file: str) -> None:
    """Mount so that the drive dies at a crash point."""
    Path(file).touch()
    variables = environment(drive.home) | {"LAYRFS_CRASH_POINT": f"{point}@1@{file}"}
    with open(drive.output, "ab") as output:
        drive.process = subprocess.Popen(
            [sys.executable, "-m", "layrfs.cli.mount", drive.path, "-f"],
            env=variables, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    wait_for(drive._mounted_or_over, "mounted")
