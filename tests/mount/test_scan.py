"""All that is left are pieces on hosts: no laptop, no root record, and in the end not even the metadata."""

import os
import subprocess
import sys
from pathlib import Path

from layrfs.crypto.keys import VolumeKeys
from layrfs.ids import PieceId
from layrfs.model.notes import Purpose, opened_untrusted
from layrfs.storage.piece_file import HEAD_BYTES, PieceHead
from tests.drive import (
    Drive,
    HostNetwork,
    differences,
    environment,
    layrfs,
    piece_files,
    processes_of,
    run,
    wait_for,
)
from tests.trees import MIB, decorate_tree, source_tree, write_stream


def purposes(hosts: HostNetwork, phrase: str) -> dict[str, Purpose]:
    """Every piece file on every host's disk, and what its note says."""
    mask = VolumeKeys.from_phrase(Path(phrase).read_text()).mask
    found = {}
    for home in hosts.homes:
        for path in piece_files(home):
            head = PieceHead.from_bytes(Path(path).read_bytes()[:HEAD_BYTES])
            found[path] = opened_untrusted(mask, PieceId(bytes.fromhex(os.path.basename(path))), head.note).purpose
    return found


def forget_roots(hosts: HostNetwork) -> None:
    """No host has any root record."""
    records = [path for home in hosts.homes for path in Path(home).rglob("roots/*")]
    assert records
    for path in records:
        path.unlink()


def damage(hosts: HostNetwork, number: int) -> None:
    """Every piece on a host's disk gets a wrong bit; their heads stay good."""
    for path in piece_files(hosts.homes[number]):
        data = bytearray(Path(path).read_bytes())
        data[HEAD_BYTES + (len(data) - HEAD_BYTES) // 2] ^= 1
        Path(path).write_bytes(data)


def cut_short(directory: Path, phrase: str, hosts: HostNetwork) -> None:
    """A scan that is killed as soon as it is at work."""
    home = directory / "home"
    command = [sys.executable, "-m", "layrfs.cli.main", "recover", "--scan", "--phrase-file", phrase, *hosts.seeds]
    scan = subprocess.Popen(command, env=environment(str(home)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: bool(list(home.rglob("sightings.db"))), "the scan has begun", 60)
    scan.kill()
    scan.wait()
    wait_for(lambda: not processes_of(str(home)), "its workers ended with it")


def scanned(directory: Path, phrase: str, hosts: HostNetwork) -> tuple[Drive, str]:
    """Another machine, with the words; what the scan said."""
    drive = Drive(str(directory), seeds=hosts.seeds)
    said = layrfs(drive.home, "recover", "--scan", "--phrase-file", phrase, *hosts.seeds)
    return drive, said.stdout


def test_without_any_root_record_the_volume_comes_back(hosts: HostNetwork, tmp_path: Path) -> None:
    tree, phrase = str(tmp_path / "tree"), str(tmp_path / "first" / "phrase")
    source_tree(tree, 200)
    decorate_tree(tree)
    write_stream(os.path.join(tree, "large"), 9 * MIB + 99)
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds) as drive:
        run("rsync", "-aHAX", f"{tree}/", f"{drive.path}/tree/")
        drive.sync()
        for step in range(3):
            for place in (tree, os.path.join(drive.path, "tree")):
                Path(place, "changed").write_bytes(b"1" * step)
                os.utime(os.path.join(place, "changed"), (1000, 2000 + step))
                os.utime(place, (1000, 2000))
            drive.sync()
        before = drive.status()["published_version"]
        drive.umount()
    forget_roots(hosts)
    damage(hosts, 2)
    hosts.kill(3)
    cut_short(tmp_path / "second", phrase, hosts)
    second, said = scanned(tmp_path / "second", phrase, hosts)
    assert "lost+found" not in said
    with second:
        assert differences(tree, os.path.join(second.path, "tree")) == ""
        Path(second.path, "new").write_text("written after")
        second.sync()
        assert not [problem for problem in second.status()["problems"] if "pieces were wrong" not in problem]
        assert second.status()["published_version"] > before
        second.umount()
    third = Drive(str(tmp_path / "third"), seeds=hosts.seeds)
    layrfs(third.home, "recover", "--phrase-file", phrase, *hosts.seeds)
    with third:
        assert Path(third.path, "new").read_text() == "written after"


def test_without_metadata_contents_come_back_without_names(hosts: HostNetwork, tmp_path: Path) -> None:
    phrase = str(tmp_path / "first" / "phrase")
    contents = {b"one": os.urandom(9 * MIB + 98) + b"1", b"two": b"two " * 30_000, b"three": b"3"}
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds) as drive:
        layrfs(drive.home, "set", drive.path, "redundancy=rs:2/4")
        for name, data in contents.items():
            Path(os.path.join(drive.path, os.fsdecode(name))).write_bytes(data)
        drive.sync()
        drive.umount()
    forget_roots(hosts)
    for path, purpose in purposes(hosts, phrase).items():
        if purpose.role != "content":
            os.unlink(path)
    pieces = len(purposes(hosts, phrase))
    second, said = scanned(tmp_path / "second", phrase, hosts)
    assert "3 files without a name: see lost+found/" in said
    with second:
        found = Path(second.path, "lost+found")
        assert sorted(path.read_bytes() for path in found.iterdir()) == sorted(contents.values())
        assert {second.state(str(path)) for path in found.iterdir()} == {"safe"}
        assert {os.getxattr(path, "user.layrfs.redundancy") for path in found.iterdir()} == {b"rs:2/4"}
        second.sync()
        assert second.status()["problems"] == []
        roles = [purpose.role for purpose in purposes(hosts, phrase).values()]
        assert roles.count("content") == pieces, "nothing was uploaded again"
        second.umount()
    third = Drive(str(tmp_path / "third"), seeds=hosts.seeds)
    layrfs(third.home, "recover", "--phrase-file", phrase, *hosts.seeds)
    with third:
        found = Path(third.path, "lost+found")
        assert sorted(path.read_bytes() for path in found.iterdir()) == sorted(contents.values())


def test_of_metadata_whose_newest_part_is_gone_the_rest_is_used(hosts: HostNetwork, tmp_path: Path) -> None:
    phrase = str(tmp_path / "first" / "phrase")
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds) as drive:
        Path(drive.path, "large").write_bytes(os.urandom(2 * MIB))
        for number in range(60):
            Path(drive.path, f"old{number}").write_text("old")
        drive.sync()
        before = set(purposes(hosts, phrase))
        Path(drive.path, "new").write_bytes(b"newer than the list of files")
        drive.sync()
        drive.crash()  # an orderly end would publish one more segment
    last = max(purpose.number for purpose in purposes(hosts, phrase).values())
    for path, purpose in purposes(hosts, phrase).items():
        if purpose.role != "content" and path not in before:  # more than one segment when the clock was quicker
            os.unlink(path)
    refused = layrfs(str(tmp_path / "other"), "recover", "--phrase-file", phrase, *hosts.seeds, check=False)
    assert refused.returncode != 0
    assert "layrfs recover --scan" in refused.stderr
    second, said = scanned(tmp_path / "second", phrase, hosts)
    with second:
        assert os.path.getsize(os.path.join(second.path, "large")) == 2 * MIB
        assert not os.path.exists(os.path.join(second.path, "new"))
        (lost,) = Path(second.path, "lost+found").iterdir()
        assert lost.read_bytes() == b"newer than the list of files"
        assert "1 file without a name" in said
        second.sync()
        assert second.status()["published_version"] > last + 1, "above the record whose segment is gone"
        assert second.status()["problems"] == []
