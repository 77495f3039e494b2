"""Prepared questions in a real drive: used up one by one, made again of what is fetched."""

import os
from pathlib import Path

from tests.drive import Drive, HostNetwork
from tests.mount.test_audit import audit, piece_file
from tests.trees import MIB


def outcomes(drive: Drive, *arguments: str, code: int = 0) -> object:
    """What hosts answered, and how often."""
    return audit(drive, *arguments, code=code)["outcomes"]


def test_questions_are_asked_once_and_fetching_makes_new_ones(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path), seeds=hosts.seeds, options=["answers=1"]) as drive:
        path = os.path.join(drive.path, "file")
        data = os.urandom(MIB)
        Path(path).write_bytes(data)
        drive.sync()
        assert outcomes(drive, path, "--answer") == {"passed": 3}
        assert outcomes(drive, path, "--answer", code=11) == {"unknown": 3}, "each question is asked once"
        assert outcomes(drive, path, "--deep") == {"passed": 3}
        drive.umount()
        drive.mount()
        assert outcomes(drive, path, "--answer") == {"passed": 3}, "also after a remount"
        drive.drop_cache()
        report = audit(drive, path)
        for piece in report["pieces"][1:]:
            hosts.kill(piece_file(hosts, piece["piece"])[0])
        assert Path(path).read_bytes() == data
        assert outcomes(drive, path, "--answer", code=11) == {"unknown": 2, "passed": 1}, "of the piece that was read"
