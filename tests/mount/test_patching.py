"""Pieces that hosts lost are made anew with no command given, by one command, and whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

from tests.drive import Drive, HostNetwork, layrfs, wait_for

MIB = 1 << 20
HEAL_SECONDS = 150.0


def filled(drive: Drive, names: int = 6) -> dict[str, bytes]:
    """Files with shards of their own, and small ones that share some; all on hosts, none in the cache."""
    contents = {f"file{number}": os.urandom(3 * MIB + number) for number in range(names)}
    contents |= {f"small{number}": os.urandom(20_000) for number in range(20)}
    for name, data in contents.items():
        Path(drive.path, name).write_bytes(data)
    drive.make_safe(*(os.path.join(drive.path, name) for name in contents))
    drive.drop_cache()
    return contents


def on_record(drive: Drive, contents: dict[str, bytes]) -> dict[str, list[str]]:
    """Of every shard of these files, the pieces it has on record."""
    shards: dict[str, list[str]] = {}
    for name in contents:
        for shard in drive.manifest(os.path.join(drive.path, name))["shards"]:
            shards[shard["id"]] = [piece["id"] for piece in shard["pieces"]]
    return shards


def on_disk(hosts: HostNetwork) -> dict[str, str]:
    """The pieces that hosts keep, by id; where they are."""
    running = [number for number, process in enumerate(hosts.processes) if process is not None]
    return {os.path.basename(path): path for number in running for path in hosts.piece_files(number)}


def delete_two_of_three(drive: Drive, hosts: HostNetwork, contents: dict[str, bytes]) -> int:
    """Of everything, behind the hosts' backs: of the list of files, which is on all five, what three have."""
    there, ours = on_disk(hosts), on_record(drive, contents)
    kept = {pieces[index % 3] for index, pieces in enumerate(ours.values())}
    doomed = [there[piece] for pieces in ours.values() for piece in pieces if piece not in kept]
    files = {piece for pieces in ours.values() for piece in pieces}
    doomed += [path for number in range(3) for path in hosts.piece_files(number) if os.path.basename(path) not in files]
    for path in doomed:
        os.unlink(path)
    return len(doomed)


def is_whole(drive: Drive, hosts: HostNetwork, contents: dict[str, bytes], copies: int = 3) -> bool:
    """Whether every shard has all its pieces on record and hosts really have them."""
    there = on_disk(hosts)
    return all(
        len(pieces) == copies and all(piece in there for piece in pieces)
        for pieces in on_record(drive, contents).values()
    )


def test_two_of_three_copies_of_everything_deleted_come_back_by_themselves(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "drive"), seeds=hosts.seeds) as drive:
        contents = filled(drive)
        wrong: list[str] = []
        stopping = threading.Event()

        def read_all() -> None:
            while not stopping.is_set():
                for name, data in contents.items():
                    if Path(drive.path, name).read_bytes() != data:
                        wrong.append(name)
                drive.drop_cache()

        assert delete_two_of_three(drive, hosts, contents) >= 15
        reader = threading.Thread(target=read_all)
        reader.start()
        try:
            wait_for(lambda: is_whole(drive, hosts, contents), "every shard has three copies again", HEAL_SECONDS)
        finally:
            stopping.set()
            reader.join()
        assert wrong == []
        wait_for(lambda: drive.status()["degraded_shards"] == 0, "nothing is degraded", HEAL_SECONDS)
        drive.sync()
        drive.umount()
        assert_metadata_came_back(hosts, drive, contents, tmp_path)


def assert_metadata_came_back(hosts: HostNetwork, drive: Drive, contents: dict[str, bytes], directory: Path) -> None:
    """The hosts that had all that was left of the list of files go; another machine gets it all the same."""
    hosts.kill(3)
    hosts.kill(4)
    other = Drive(str(directory / "other"), seeds=hosts.seeds)
    phrase = os.path.join(os.path.dirname(drive.home), "phrase")
    layrfs(other.home, "recover", *hosts.seeds, "--phrase-file", phrase)
    with other:
        assert sorted(os.listdir(other.path)) == sorted(contents)
        name = next(iter(contents))
        assert Path(other.path, name).read_bytes() == contents[name]


def test_a_host_that_stays_away_is_replaced_and_cleans_up_when_it_comes_back(
    hosts: HostNetwork, tmp_path: Path
) -> None:
    drive = Drive(str(tmp_path), seeds=hosts.seeds, options=["patch_after=400"])
    drive.variables = {"LAYRFS_TEMPO": "200"}  # of upkeep's time: a silence of 400 s lasts two
    with drive:
        contents = filled(drive, names=3)
        ours = {piece for pieces in on_record(drive, contents).values() for piece in pieces}
        away = max(range(1, 5), key=lambda number: len(ours & set(pieces_of(hosts, number))))
        left = ours & set(pieces_of(hosts, away))
        hosts.kill(away)

        def is_replaced() -> bool:
            needed = {piece for pieces in on_record(drive, contents).values() for piece in pieces}
            return not needed & left and needed <= set().union(
                *(pieces_of(hosts, number) for number in range(5) if number != away)
            )

        wait_for(is_replaced, "what the host had is on the four others", HEAL_SECONDS)
        drive.drop_cache()
        for name, data in contents.items():
            assert Path(drive.path, name).read_bytes() == data
        assert left <= set(pieces_of(hosts, away)), "it still has what it had"
        drive.sync()
        hosts.start(away)

        def has_dropped() -> bool:
            layrfs(drive.home, "gc", "--retention", "0")
            return not left & set(pieces_of(hosts, away))

        wait_for(has_dropped, "the host that came back dropped what has successors", HEAL_SECONDS)


def pieces_of(hosts: HostNetwork, number: int) -> list[str]:
    """Ids of what one host keeps."""
    return [os.path.basename(path) for path in hosts.piece_files(number)]


def test_patch_says_what_it_makes_and_what_is_lost(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path), seeds=hosts.seeds) as drive:
        contents = filled(drive, names=3)
        shards = on_record(drive, contents)
        there = on_disk(hosts)
        (doomed,) = drive.manifest(os.path.join(drive.path, "file2"))["shards"]
        for shard, pieces in shards.items():
            for piece in pieces if shard == doomed["id"] else pieces[:1]:
                os.unlink(there[piece])
        one = os.path.join(drive.path, "file0")
        plan = json.loads(layrfs(drive.home, "patch", one, "--dry-run", "--json").stdout)
        assert (plan["shards"], plan["mended"], plan["lost"]) == (1, 0, 0)
        assert plan["listed"][0]["wanted"] == [0]
        done = layrfs(drive.home, "patch", check=False)
        assert done.returncode == 1, "something is lost"
        assert f"/file2  bytes 0 to {len(contents['file2']):,}" in " ".join(done.stdout.split()).replace(
            "file2 ", "file2  "
        )
        wait_for(lambda: any("parts of /file2" in problem for problem in drive.status()["problems"]), "said in status")
        assert drive.state(one) == "safe"
        again = layrfs(drive.home, "patch", one)
        assert "every shard has all its pieces" in again.stdout
        assert Path(one).read_bytes() == contents["file0"]


def test_patching_that_is_killed_loses_nothing_and_is_done_again(hosts: HostNetwork, tmp_path: Path) -> None:
    drive = Drive(str(tmp_path), seeds=hosts.seeds)
    with drive:
        contents = filled(drive, names=2)
        for point in ("pieces made anew", "pieces replaced"):
            there = on_disk(hosts)
            for pieces in on_record(drive, contents).values():
                os.unlink(there[pieces[0]])
            drive.umount()
            file = str(tmp_path / point.replace(" ", "-"))
            Path(file).touch()
            drive.variables = {"LAYRFS_CRASH_POINT": f"{point}@1@{file}"}
            drive.mount()
            layrfs(drive.home, "patch", check=False)
            assert drive.process is not None
            assert drive.process.wait() == -signal.SIGKILL, point
            drive.crash()
            drive.variables = {}
            drive.mount()
            layrfs(drive.home, "patch")
            assert is_whole(drive, hosts, contents)
        drive.drop_cache()
        for name, data in contents.items():
            assert Path(drive.path, name).read_bytes() == data
