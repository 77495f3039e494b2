"""A whole day of the drive: files in, on the hosts, cache gone, mounted again, everything back bit for bit."""

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drive import Drive, differences, layrfs, run, wait_for
from tests.trees import MIB, decorate_tree, files_below, source_tree, write_stream


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    """A drive on its embedded network."""
    with Drive(str(tmp_path_factory.mktemp("trip"))) as drive:
        yield drive


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, big: bool) -> str:
    """A plain directory with everything rsync can compare, and one large file."""
    root = str(tmp_path_factory.mktemp("plain") / "tree")
    source_tree(root, 5_000 if big else 500)
    decorate_tree(root)
    write_stream(os.path.join(root, "large"), (2048 if big else 48) * MIB + 4321)
    return root


def stored_bytes(drive: Drive) -> int:
    """What the embedded hosts hold for us."""
    return sum(os.path.getsize(path) for path in drive.piece_files())


def test_a_tree_reads_back_from_the_hosts_after_the_cache_is_gone(drive: Drive, tree: str) -> None:
    copy = os.path.join(drive.path, "tree")
    run("rsync", "-aHAX", f"{tree}/", f"{copy}/")
    drive.make_safe(os.path.join(copy, "large"))
    assert stored_bytes(drive) > 3 * os.path.getsize(os.path.join(tree, "large"))
    drive.remount(emptied=True)
    assert differences(tree, copy) == ""


def test_umount_waits_for_the_network_and_leaves_no_process(drive: Drive) -> None:
    write_stream(os.path.join(drive.path, "late"), 12 * MIB, seed=5)
    drive.remount(emptied=True)  # umount itself checks that every process has ended
    write_stream(os.path.join(os.path.dirname(drive.home), "late"), 12 * MIB, seed=5)
    assert filecmp.cmp(
        os.path.join(drive.path, "late"), os.path.join(os.path.dirname(drive.home), "late"), shallow=False
    )


def test_dropping_the_cache_of_a_mounted_drive_keeps_it_readable(drive: Drive) -> None:
    write_stream(os.path.join(drive.path, "kept"), 9 * MIB, seed=6)
    drive.make_safe(*files_below(drive.path))
    drive.drop_cache()
    assert drive.status()["cached_bytes"] == 0
    write_stream(os.path.join(os.path.dirname(drive.home), "kept"), 9 * MIB, seed=6)
    assert filecmp.cmp(
        os.path.join(drive.path, "kept"), os.path.join(os.path.dirname(drive.home), "kept"), shallow=False
    )


def test_a_manifest_names_three_hosts_for_every_shard(drive: Drive) -> None:
    path = os.path.join(drive.path, "named")
    write_stream(path, 9 * MIB, seed=8)
    drive.make_safe(path)
    manifest = drive.manifest(path)
    assert manifest["fileSize"] == 9 * MIB
    assert len(manifest["shards"]) >= 3
    stored = {os.path.basename(piece) for piece in drive.piece_files()}
    for shard in manifest["shards"]:
        assert len({piece["host"] for piece in shard["pieces"]}) == 3
        assert {piece["id"] for piece in shard["pieces"]} <= stored


def test_the_same_bytes_twice_are_stored_once(drive: Drive) -> None:
    write_stream(os.path.join(drive.path, "once"), 16 * MIB, seed=9)
    drive.make_safe(os.path.join(drive.path, "once"))
    before = stored_bytes(drive)
    write_stream(os.path.join(drive.path, "twice"), 16 * MIB, seed=9)
    drive.sync()
    assert stored_bytes(drive) - before < MIB
    drive.remount(emptied=True)
    assert filecmp.cmp(os.path.join(drive.path, "once"), os.path.join(drive.path, "twice"), shallow=False)


def test_compressible_data_takes_less_room(drive: Drive) -> None:
    before = stored_bytes(drive)
    Path(drive.path, "text").write_bytes(
        b"".join(b"line %09d of a log that says little\n" % number for number in range(250_000))
    )
    drive.sync()
    assert 0 < stored_bytes(drive) - before < 3 * os.path.getsize(os.path.join(drive.path, "text")) // 4


def test_changes_after_a_round_trip_are_kept(drive: Drive) -> None:
    path = os.path.join(drive.path, "edited")
    write_stream(path, 10 * MIB, seed=11)
    drive.remount(emptied=True)
    expected = bytearray(Path(path).read_bytes())
    with open(path, "r+b") as file:
        for offset in (0, 4 * MIB - 3, 7 * MIB + 1):
            file.seek(offset)
            file.write(b"changed")
            expected[offset : offset + 7] = b"changed"
        file.truncate(9 * MIB + 17)
    del expected[9 * MIB + 17 :]
    drive.remount(emptied=True)
    assert Path(path).read_bytes() == expected


def test_the_classic_interface_brings_a_file_back_without_the_mount(drive: Drive, tmp_path: Path) -> None:
    source, manifest, back = (str(tmp_path / name) for name in ("photo.raw", "photo.json", "back.raw"))
    write_stream(source, 6 * MIB + 77, seed=12)
    layrfs(drive.home, "upload", source)
    drive.sync()
    assert "photo.raw" in layrfs(drive.home, "list").stdout
    Path(manifest).write_text(layrfs(drive.home, "manifest", os.path.join(drive.path, "photo.raw")).stdout)
    os.unlink(os.path.join(drive.path, "photo.raw"))
    layrfs(drive.home, "download", manifest, "-o", back)
    assert filecmp.cmp(source, back, shallow=False)


def test_a_small_cache_holds_a_large_file_only_in_part(tmp_path: Path) -> None:
    with Drive(str(tmp_path / "drive"), options=["cache_size=64M"]) as drive:
        paths = [os.path.join(drive.path, f"f{number}") for number in range(4)]
        for number, path in enumerate(paths):
            write_stream(path, 32 * MIB, seed=20 + number)
        drive.sync()
        wait_for(lambda: drive.status()["cached_bytes"] <= 64 * MIB, "clean blocks evicted down to the limit")
        for number, path in enumerate(paths):
            write_stream(str(tmp_path / "plain"), 32 * MIB, seed=20 + number)
            assert filecmp.cmp(path, str(tmp_path / "plain"), shallow=False)
        wait_for(lambda: drive.status()["cached_bytes"] <= 64 * MIB, "what was read evicted as well")
