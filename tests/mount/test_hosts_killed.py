"""Five hosts as processes of their own, two of them killed with SIGKILL: a shard with three copies still reads."""

import os
from pathlib import Path

from tests.drive import Drive, HostNetwork, differences, run, wait_for
from tests.trees import MIB, decorate_tree, source_tree, write_stream


def test_everything_reads_with_any_two_hosts_killed(hosts: HostNetwork, tmp_path: Path, big: bool) -> None:
    tree = str(tmp_path / "tree")
    source_tree(tree, 5_000 if big else 300)
    decorate_tree(tree)
    write_stream(os.path.join(tree, "large"), (2048 if big else 40) * MIB + 99)
    with Drive(str(tmp_path / "drive"), seeds=hosts.seeds) as drive:
        copy = os.path.join(drive.path, "tree")
        run("rsync", "-aHAX", f"{tree}/", f"{copy}/")
        drive.sync()
        assert all(hosts.piece_files(number) for number in range(5)), "pieces are spread over all hosts"
        drive.remount(emptied=True)
        assert differences(tree, copy) == ""

        drive.umount()
        drive.drop_cache()
        hosts.kill(0)  # the seed among them
        hosts.kill(3)
        drive.mount()
        assert differences(tree, copy) == ""

        write_stream(os.path.join(drive.path, "later"), 8 * MIB, seed=2)
        drive.make_safe(os.path.join(drive.path, "later"))  # three hosts are left, three copies fit

        hosts.start(0)
        hosts.start(3)
        hosts.kill(1)
        hosts.kill(2)
        drive.remount(emptied=True)
        assert differences(tree, copy) == ""


def test_hosts_killed_under_an_upload_cost_nothing_but_time(hosts: HostNetwork, tmp_path: Path) -> None:
    plain = str(tmp_path / "stream")
    write_stream(plain, 64 * MIB)
    with Drive(str(tmp_path / "drive"), seeds=hosts.seeds, options=["upload_after=0"]) as drive:
        run("cp", plain, drive.path)
        wait_for(lambda: len(hosts.piece_files(4)) > 1, "the upload is under way")
        hosts.kill(4)
        hosts.kill(2)
        drive.sync()
        drive.remount(emptied=True)
        run("cmp", plain, os.path.join(drive.path, "stream"))


def test_two_hosts_only_is_degraded_and_finished_when_more_appear(tmp_path: Path) -> None:
    network = HostNetwork(str(tmp_path / "hosts"), 4, running=2)
    with network as hosts, Drive(str(tmp_path / "drive"), seeds=network.seeds, options=["upload_after=0"]) as drive:
        path = os.path.join(drive.path, "file")
        write_stream(path, 6 * MIB)
        wait_for(lambda: drive.state(path) == "degraded", lambda: f"two copies of three: {drive.state(path)}")
        hosts.start(2)
        hosts.start(3)
        drive.make_safe(path)  # the third copy is placed when hosts appear
        hosts.kill(0)
        hosts.kill(1)
        drive.remount(emptied=True)
        assert os.path.getsize(path) == 6 * MIB
        run("cp", path, str(tmp_path / "back"))
        write_stream(str(tmp_path / "plain"), 6 * MIB)
        run("cmp", str(tmp_path / "back"), str(tmp_path / "plain"))
