"""One liar among honest hosts: whoever reads gets the right bytes, and the liar is found out and done without."""

import contextlib
import os
import sqlite3
from pathlib import Path

import msgspec

from layrfs import tempo
from layrfs.config import DEFAULT_VOLUME, Paths
from layrfs.host.directory import HostDirectory
from layrfs.policy.trust import Standing, Trust, standing
from tests.drive import Drive, HostNetwork, differences, run, wait_for
from tests.trees import MIB, files_below, source_tree, write_stream

HURRY = 1000
"""A host is visited every four seconds, and who is suspended stays it for ten minutes."""

LIAR = 5


def test_a_host_with_nothing_but_hashes_costs_nothing_and_is_done_without(tmp_path: Path) -> None:
    """Nobody gives a command."""
    tree = str(tmp_path / "tree")
    source_tree(tree, 60)
    for number in range(20):
        write_stream(os.path.join(tree, f"large{number}"), MIB, seed=number)
    network = HostNetwork(str(tmp_path / "hosts"), LIAR + 1, liars={LIAR: "hashes only"})
    with network as hosts, Drive(str(tmp_path / "drive"), seeds=network.seeds, options=["upload_after=0"]) as drive:
        liar = HostDirectory(os.path.join(hosts.homes[LIAR], "data")).existing_identity().node_id
        copy = os.path.join(drive.path, "tree")
        os.setxattr(drive.path, "user.layrfs.redundancy", b"mirror:5")  # so that each shard is likely to be there too
        run("cp", "-a", tree, copy)
        drive.sync()
        assert held_by(drive, copy, liar.hex()) > 0, "it acknowledged its share of the pieces"
        drive.umount()
        drive.drop_cache()
        drive.variables = {tempo.VARIABLE: str(HURRY)}
        drive.mount()
        run("cmp", os.path.join(tree, "large0"), os.path.join(copy, "large0"))
        wait_for(
            lambda: standing_of(drive, liar) in {"suspended", "excluded"}, lambda: f"it is {standing_of(drive, liar)}"
        )
        wait_for(lambda: held_by(drive, copy, liar.hex()) == 0, "everything it had is made anew elsewhere")
        drive.remount(emptied=True)
        assert differences(tree, copy) == ""
        run("cp", os.path.join(tree, "large0"), os.path.join(copy, "later"))
        drive.make_safe(os.path.join(copy, "later"))
        assert held_by(drive, copy, liar.hex()) == 0, "and it gets nothing new"


def held_by(drive: Drive, root: str, host: str) -> int:
    """How many pieces of the files below a directory a host has, as manifests say."""
    manifests = [drive.manifest(path) for path in files_below(root)]
    return sum(
        piece["host"] == host for manifest in manifests for shard in manifest["shards"] for piece in shard["pieces"]
    )


def standing_of(drive: Drive, host: bytes) -> Standing:
    """What its memory amounts to, in upkeep's time."""
    database = Paths.under(drive.home).database(DEFAULT_VOLUME)
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT memory FROM local_trust WHERE host = ?", (host,)).fetchone()
    trust = msgspec.msgpack.decode(found[0], type=Trust) if found else Trust()
    return standing(trust, HURRY * tempo.now_seconds())
