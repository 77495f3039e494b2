"""A volume of many small files, in little: `python -m tests.bench.scale` measures it with 100,000."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bench.files import create_all, read_all, walk
from tests.bench.scale import stored
from tests.drive import Drive, HostNetwork, layrfs, run
from tests.trees import small_files

TOUCH_BYTES = 64 << 10


def test_replayed_after_a_kill_cheap_to_touch_and_back_from_its_words(
    hosts: HostNetwork, tmp_path: Path, big: bool
) -> None:
    count = 20_000 if big else 1_000
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds, options=["upload_after=1000"]) as drive:
        files = small_files(os.path.join(drive.path, "files"), count)
        create_all(files)
        run("sync", "-f", drive.path)
        with open(files[-1][0], "rb") as last:
            os.fsync(last.fileno())  # the metadata of all of them
        drive.crash()
        drive.mount()
        assert drive.status()["cached_bytes"] == count * 4096, "everything is counted, waiting or on its way already"
        read_all(files)
        drive.sync()
        for path, _ in files[:: count // 5]:
            before = stored(hosts)
            os.utime(path)
            drive.sync()
            assert sent(before, stored(hosts)) < TOUCH_BYTES, "copies of one small segment and of the root record"
        drive.umount()

    phrase = os.path.join(os.path.dirname(drive.home), "phrase")
    second = Drive(str(tmp_path / "second"), seeds=hosts.seeds)
    layrfs(second.home, "recover", "--phrase-file", phrase, *hosts.seeds)
    with second:
        assert walk(os.path.join(second.path, "files"))[1] == count + -(-count // 100)
        read_all([(os.path.join(second.path, os.path.relpath(path, drive.path)), data) for path, data in files[::7]])


def sent(before: dict[str, int], after: dict[str, int]) -> int:
    """Bytes that were not on the hosts' disks before."""
    return sum(size for name, size in after.items() if before.get(name) != size)
