"""`layrfs audit` with real hosts: what a disk lost behind its host's back is found, named and made anew."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.drive import Drive, HostNetwork, layrfs, wait_for
from tests.trees import MIB


def audit(drive: Drive, *arguments: str, code: int = 0) -> dict[str, Any]:
    """`layrfs audit --json`, which ends with this code."""
    done = layrfs(drive.home, "audit", "--json", *arguments, check=False)
    assert done.returncode == code, f"{done.stdout[-3000:]}\n{done.stderr}"
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def sentence(drive: Drive, *arguments: str, code: int = 0) -> str:
    """What it says to a person."""
    done: subprocess.CompletedProcess[str] = layrfs(drive.home, "audit", *arguments, check=False)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return (done.stdout + done.stderr).strip()


def piece_file(hosts: HostNetwork, piece: str) -> tuple[int, Path]:
    """The host that has it, and where."""
    found = [(number, path) for number in range(5) for path in hosts.piece_files(number) if path.endswith(piece)]
    ((number, path),) = found
    return number, Path(path)


def test_what_is_lost_at_hosts_is_found_named_and_made_anew(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path), seeds=hosts.seeds, options=["upload_after=600"]) as drive:
        path = os.path.join(drive.path, "folder", "file")
        os.mkdir(os.path.dirname(path))
        assert sentence(drive, drive.path) == "nothing to audit"
        data = os.urandom(5 * MIB)
        Path(path).write_bytes(data)
        assert "`layrfs sync` sends it" in sentence(drive, path)
        drive.sync()

        report = audit(drive, path, "--answer")
        assert (report["outcomes"], report["files"], report["shards"]) == ({"passed": 6}, 1, 2)
        whole = audit(drive)
        assert set(whole["outcomes"]) == {"passed"}
        assert {piece["path"] for piece in whole["pieces"]} == {"/folder/file", "(list of files)"}
        assert whole["root_keepers"] >= 3

        first, second = [piece for piece in report["pieces"] if piece["shard"] == report["pieces"][0]["shard"]][:2]
        _, deleted = piece_file(hosts, first["piece"])
        deleted.unlink()
        _, flipped = piece_file(hosts, second["piece"])
        spoilt = bytearray(flipped.read_bytes())
        spoilt[-70_000] ^= 1
        flipped.write_bytes(spoilt)
        found = audit(drive, os.path.dirname(path), "--deep", code=1)
        outcomes = {(piece["piece"], piece["host"]): piece["outcome"] for piece in found["pieces"]}
        named = {(lost["piece"], lost["host"]) for lost in (first, second)} & outcomes.keys()
        assert named  # the other may have been given up when the shard was made anew for the first, while this went on
        assert {outcomes.pop(lost) for lost in named} <= {"failed", "missing"}
        assert set(outcomes.values()) == {"passed"}
        wait_for(lambda: drive.state(path) == "safe", "both are made anew", 60)
        drive.sync()
        healed = audit(drive, path, "--deep")
        assert healed["outcomes"] == {"passed": 6}
        drive.drop_cache()
        assert Path(path).read_bytes() == data

        killed = healed["pieces"][0]["host"]
        number, _ = piece_file(hosts, healed["pieces"][0]["piece"])
        hosts.kill(number)
        gone = audit(drive, path, code=11)
        assert {piece["outcome"] == "offline" for piece in gone["pieces"] if piece["host"] == killed} == {True}
        assert {piece["outcome"] for piece in gone["pieces"] if piece["host"] != killed} == {"passed"}


def test_what_two_of_three_disks_lost_is_found_and_made_anew_with_no_command(
    hosts: HostNetwork, tmp_path: Path
) -> None:
    drive = Drive(str(tmp_path), seeds=hosts.seeds)
    drive.variables = {"LAYRFS_TEMPO": "200"}
    with drive:
        contents = {f"file{number}": os.urandom(MIB // 2) for number in range(5)}
        for name, data in contents.items():
            Path(drive.path, name).write_bytes(data)
            drive.sync()
        report = audit(drive)
        copies: dict[str, list[Path]] = {}
        for piece in report["pieces"]:
            copies.setdefault(piece["shard"], []).append(piece_file(hosts, piece["piece"])[1])
        for files in copies.values():
            for path in files[:2]:
                path.unlink()
        wait_for(lambda: good_pieces(hosts, drive) == 3 * len(contents), "every shard has three copies again", 90)
        for name, data in contents.items():
            assert Path(drive.path, name).read_bytes() == data


def good_pieces(hosts: HostNetwork, drive: Drive) -> int:
    """Pieces of the volume's files that are on a host's disk, as the drive has them on record."""
    on_disks = {os.path.basename(path) for number in range(5) for path in hosts.piece_files(number)}
    names = [name for name in os.listdir(drive.path) if not name.startswith(".")]
    recorded = {
        piece["id"]
        for name in names
        for shard in drive.manifest(os.path.join(drive.path, name))["shards"]
        for piece in shard["pieces"]
    }
    return len(recorded & on_disks)
