"""Programs that use the drive and are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.drive import REPOSITORY, is_mounted


def test_a_request_taken_back_before_it_is_read_does_not_stop_the_drive(tmp_path: Path) -> None:
    mountpoint = str(tmp_path / "mnt")
    os.mkdir(mountpoint)
    command = [sys.executable, "-m", "tests.mount.withdrawn_requests", mountpoint]
    try:
        drive = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False)
        assert (drive.stdout, drive.returncode) == ("answers\n", 0), drive.stderr
        assert not is_mounted(mountpoint)
    finally:
        subprocess.run(["fusermount3", "-uzq", "--", mountpoint], check=False, capture_output=True)
