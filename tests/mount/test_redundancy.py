"""Eight hosts as processes of their own: what a folder set to rs:4/8 survives, and how files get there."""

import os
from pathlib import Path
from typing import Any

from tests.drive import Drive, HostNetwork, differences, layrfs, run, wait_for
from tests.trees import MIB, files_below, source_tree, write_stream


def test_a_coded_folder_reads_with_any_four_of_eight_hosts_killed(tmp_path: Path) -> None:
    tree, network = str(tmp_path / "tree"), HostNetwork(str(tmp_path / "hosts"), 8)
    source_tree(tree, 100)
    write_stream(os.path.join(tree, "large"), 18 * MIB + 99)
    with network as hosts, Drive(str(tmp_path / "drive"), seeds=network.seeds) as drive:
        folder = os.path.join(drive.path, "coded")
        os.mkdir(folder)
        set_policy(drive, folder, "redundancy=rs:4/8")
        run("cp", "-a", tree, os.path.join(folder, "tree"))
        drive.make_safe(*files_below(folder))
        pieces = {len(shard["pieces"]) for shard in manifest_shards(drive, os.path.join(folder, "tree", "large"))}
        assert pieces == {8}
        drive.umount()
        drive.drop_cache()
        for number in (0, 2, 5, 7):
            hosts.kill(number)
        drive.mount()
        assert differences(tree, os.path.join(folder, "tree")) == ""
        for number in (0, 2, 5, 7):
            hosts.start(number)
        for number in (1, 3, 4, 6):
            hosts.kill(number)
        drive.remount(emptied=True)
        assert differences(tree, os.path.join(folder, "tree")) == ""


def test_what_is_there_gets_another_redundancy_in_the_background_and_may_be_killed(tmp_path: Path) -> None:
    tree, network = str(tmp_path / "tree"), HostNetwork(str(tmp_path / "hosts"), 5)
    source_tree(tree, 50)
    write_stream(os.path.join(tree, "large"), 30 * MIB)
    with network as hosts, Drive(str(tmp_path / "drive"), seeds=network.seeds) as drive:
        copy, other = os.path.join(drive.path, "tree"), os.path.join(drive.path, "other")
        run("cp", "-a", tree, copy)
        write_stream(other, 5 * MIB, seed=3)
        drive.sync()
        run("setfattr", "-n", "user.layrfs.redundancy", "-v", "mirror:2", other)
        set_policy(drive, copy, "redundancy=rs:2/4", "sharding=size:1M")
        assert os.getxattr(os.path.join(copy, "large"), "user.layrfs.redundancy") == b"rs:2/4"
        assert os.getxattr(os.path.join(copy, "large"), "user.layrfs.sharding") == b"size:4M"
        drive.crash()
        drive.mount()
        wait_for(lambda: not waiting_bytes(drive, "/"), lambda: f"{waiting_bytes(drive, '/')} bytes are left")
        assert differences(tree, copy) == ""
        drive.make_safe(*files_below(copy))
        totals = {shard["total"] for shard in manifest_shards(drive, os.path.join(copy, "large"))}
        assert totals == {4}
        assert {shard["total"] for shard in manifest_shards(drive, other)} == {2}
        drive.sync()
        drive.umount()
        drive.drop_cache()
        hosts.kill(1)
        hosts.kill(4)
        drive.mount()
        assert differences(tree, copy) == ""


def set_policy(drive: Drive, path: str, *policies: str) -> None:
    assert layrfs(drive.home, "set", path, *policies).returncode == 0


def waiting_bytes(drive: Drive, path: str) -> int:
    place = drive.path if path == "/" else path
    return int(drive.status(place)["otherwise_bytes"])


def manifest_shards(drive: Drive, path: str) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = drive.manifest(path)["shards"]
    return shards
