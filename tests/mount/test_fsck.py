"""`layrfs fsck` on real volumes: sound ones are left alone, damaged ones come back, nothing kept is lost."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.damage import DAMAGES, damage_page, pages_of
from tests.drive import STOP_SECONDS, Drive, HostNetwork, differences, environment, finished, layrfs, run, said
from tests.trees import MIB, source_tree, write_stream

SOUND, FAILED, REPAIRED, UNREADABLE, IN_USE, NETWORK = 0, 1, 15, 8, 9, 11


def volume_of(drive: Drive) -> Path:
    return Path(drive.home, "volumes", "default")


def database_of(drive: Drive) -> str:
    return str(volume_of(drive) / "metadata.db")


def fsck(drive: Drive, *arguments: str) -> subprocess.CompletedProcess[str]:
    return layrfs(drive.home, "fsck", *arguments, check=False)


def report(drive: Drive, *arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(fsck(drive, "--json", *arguments).stdout)
    return answer


def expect(drive: Drive, code: int, *arguments: str) -> str:
    done = fsck(drive, *arguments)
    assert done.returncode == code, said(done)
    return done.stdout + done.stderr


def fill(drive: Drive, plain: str) -> None:
    """The same tree outside and inside, all of it on hosts."""
    source_tree(plain, 60)
    run("cp", "-a", plain, os.path.join(drive.path, "tree"))
    write_stream(os.path.join(drive.path, "large"), 9 * MIB + 77)
    drive.sync()


def write_unsynced(drive: Drive) -> dict[str, bytes]:
    """Written and fsynced after everything else was synced, and on no host: what is in it, by name."""
    contents = {"new": os.urandom(300_000), "large": b"", "appended": b"first"}
    Path(drive.path, "appended").write_bytes(b"first")
    with open(os.path.join(drive.path, "large"), "r+b") as file:
        file.seek(5 * MIB)
        file.write(b"overwritten" * 1000)
        os.fsync(file.fileno())
        file.seek(0)
        contents["large"] = file.read()
    write_durably(os.path.join(drive.path, "new"), contents["new"])
    run("sync", os.path.join(drive.path, "appended"))
    return contents


def write_durably(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def lost_and_found(drive: Drive) -> list[bytes]:
    directory = Path(drive.path, "lost+found")
    return [one.read_bytes() for one in directory.iterdir()] if directory.exists() else []


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    return Drive(str(tmp_path / "drive"), options=["upload_after=1000"])


def test_a_sound_volume_is_left_alone(drive: Drive, tmp_path: Path) -> None:
    with drive:
        assert "unmount it first" in expect(drive, IN_USE)
        fill(drive, str(tmp_path / "plain"))
        drive.umount()
        assert "is sound" in expect(drive, SOUND)
        assert "is sound" in expect(drive, SOUND, "--deep", "--repair")
        found = report(drive)
        assert found["findings"] == found["left"] == found["repairs"] == []
        drive.mount()
        run("cp", "-a", str(tmp_path / "plain"), os.path.join(drive.path, "again"))
        drive.crash()
        assert "did not end in order" in expect(drive, SOUND)
        drive.mount()
        assert differences(str(tmp_path / "plain"), os.path.join(drive.path, "tree")) == ""


@pytest.mark.timeout(3600)
def test_damaged_pages_are_found_and_everything_comes_back(drive: Drive, tmp_path: Path, big: bool) -> None:
    plain = str(tmp_path / "plain")
    with drive:
        fill(drive, plain)
        contents = write_unsynced(drive)
        drive.umount(wait=False)
        database = database_of(drive)
        for seed in range(60 if big else 2):
            dice = random.Random(seed)
            kind = dice.choice(list(DAMAGES))
            pages = [damage_page(database, seed * 100 + more, kind) for more in range(dice.choice([1, 1, 5]))]
            what = f"seed {seed}: {kind} in pages {pages} of {pages_of(database)}"
            refused = layrfs(drive.home, "mount", drive.path, check=False)
            assert refused.returncode == UNREADABLE, what
            assert "layrfs fsck --repair" in refused.stderr, what
            if seed == 0:
                assert "layrfs fsck --repair" in layrfs(drive.home, "doctor", check=False).stdout
            expect(drive, FAILED)
            expect(drive, REPAIRED, "--repair")
            expect(drive, SOUND)
            drive.mount()

            everything = {name: Path(drive.path, name) for name in contents}
            found = lost_and_found(drive)
            for name, path in everything.items():
                assert (path.exists() and path.read_bytes() == contents[name]) or contents[name] in found, (what, name)
            assert differences(plain, os.path.join(drive.path, "tree")) == "", what
            drive.umount(wait=False)
        assert list(volume_of(drive).glob("damaged-*/metadata.db"))
        drive.mount()
        drive.sync()
        drive.remount(emptied=True)
        assert Path(drive.path, "large").read_bytes() == contents["large"]
        assert drive.status()["dirty_bytes"] == 0
        drive.umount()
        expect(drive, SOUND, "--deep")


def test_without_any_database_nothing_synced_or_fsynced_is_lost(drive: Drive, tmp_path: Path) -> None:
    plain = str(tmp_path / "plain")
    with drive:
        fill(drive, plain)
        contents = write_unsynced(drive)
        drive.crash()
        for path in volume_of(drive).glob("metadata.db*"):
            path.unlink()
        refused = layrfs(drive.home, "mount", drive.path, check=False)
        assert refused.returncode == UNREADABLE
        assert "missing" in refused.stderr
        assert "from the network" in expect(drive, REPAIRED, "--repair")
        drive.mount()
        assert Path(drive.path, "large").read_bytes() == contents["large"]
        assert sorted(lost_and_found(drive)) == sorted([contents["new"], contents["appended"]])
        drive.sync()
        drive.remount(emptied=True)
        assert Path(drive.path, "large").read_bytes() == contents["large"]
        assert sorted(lost_and_found(drive)) == sorted([contents["new"], contents["appended"]])
        assert differences(plain, os.path.join(drive.path, "tree")) == ""


@pytest.mark.parametrize(
    "point", ["fsck: database complete", "fsck: old database set aside", "fsck: database exchanged"]
)
def test_a_repair_killed_in_the_middle_is_done_again(drive: Drive, tmp_path: Path, point: str) -> None:
    plain, trap = str(tmp_path / "plain"), tmp_path / "trap"
    with drive:
        fill(drive, plain)
        contents = write_unsynced(drive)
        drive.umount(wait=False)
        damage_page(database_of(drive), 4, "noise", page=0)
        trap.touch()
        killed = layrfs_with(drive.home, {"LAYRFS_CRASH_POINT": f"{point}@1@{trap}"}, "fsck", "--repair")
        assert killed.returncode == -9, said(killed)
        refused = layrfs(drive.home, "mount", drive.path, check=False)
        assert refused.returncode == UNREADABLE, said(refused)
        expect(drive, REPAIRED, "--repair")
        expect(drive, SOUND)
        drive.mount()
        assert Path(drive.path, "large").read_bytes() == contents["large"]
        kept = lost_and_found(drive)
        for name in ("new", "appended"):
            path = Path(drive.path, name)
            assert contents[name] in kept or path.read_bytes() == contents[name]


def layrfs_with(home: str, more: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command with something more in its environment."""
    return finished([sys.executable, "-m", "layrfs.cli.main", *arguments], environment(home) | more, "/", 240)


def test_without_hosts_a_damaged_database_is_left_as_it_is(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "drive"), seeds=hosts.seeds) as drive:
        Path(drive.path, "file").write_text("content")
        drive.sync()
        drive.umount()
        hosts.close()
        database = database_of(drive)
        assert "do not answer" in expect(drive, FAILED)
        damage_page(database, 1, "zeros", page=1)
        before = {name: (volume_of(drive) / name).stat().st_ino for name in os.listdir(volume_of(drive))}
        damaged = Path(database).read_bytes()
        refused = expect(drive, NETWORK, "--repair")
        assert "No host answers" in refused
        assert Path(database).read_bytes() == damaged
        after = {name: (volume_of(drive) / name).stat().st_ino for name in os.listdir(volume_of(drive))}
        assert after == before


def test_copies_that_hosts_lost_are_found_recorded_and_made_anew(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "drive"), seeds=hosts.seeds) as drive:
        write_stream(os.path.join(drive.path, "stream"), 9 * MIB)
        drive.sync()
        manifest = drive.manifest(os.path.join(drive.path, "stream"))
        drive.umount()
        piece = manifest["shards"][0]["pieces"][0]["id"]
        number = next(number for number in range(5) if any(piece in path for path in hosts.piece_files(number)))
        os.unlink(next(path for path in hosts.piece_files(number) if piece in path))
        found = report(drive)
        assert [one["check"] for one in found["left"] if one["severity"] != "note"] == ["copies"]
        assert "at the next mount" in expect(drive, REPAIRED, "--repair")
        drive.mount()
        drive.sync()
        now = drive.manifest(os.path.join(drive.path, "stream"))["shards"][0]["pieces"]
        stored = [path for number in range(5) for path in hosts.piece_files(number)]
        assert len(now) == 3
        assert all(any(one["id"] in path for path in stored) for one in now), "what is recorded is there"
        drive.umount()
        expect(drive, SOUND, "--deep")


def test_pages_damaged_under_a_mount_give_errors_and_no_wrong_bytes(drive: Drive, tmp_path: Path) -> None:
    plain = str(tmp_path / "plain")
    with drive:
        fill(drive, plain)
        drive.remount(emptied=True)
        database = database_of(drive)
        for page in range(1, pages_of(database)):
            damage_page(database, page, "noise", page=page)
        outcomes = [outcome(plain, drive, name) for name in sorted(os.listdir(plain)) for _again in (1, 2)]
        assert "wrong" not in outcomes
        assert "failed" in outcomes
        with pytest.raises(OSError, match="Input/output error"):
            write_durably(os.path.join(drive.path, "new"), b"n")
        assert any("layrfs fsck --repair" in problem for problem in drive.status()["problems"])
        assert drive.process is not None
        assert drive.process.poll() is None, "a damaged database does not end the mount"
        layrfs(drive.home, "umount", drive.path, "--no-wait", check=False)
        drive.process.wait(STOP_SECONDS)
        expect(drive, REPAIRED, "--repair")
        drive.mount()
        assert differences(plain, os.path.join(drive.path, "tree")) == ""


def outcome(plain: str, drive: Drive, name: str) -> str:
    """What reading a file gives."""
    try:
        found = Path(drive.path, "tree", name).read_bytes()
    except OSError:
        return "failed"
    return "right" if found == Path(plain, name).read_bytes() else "wrong"
