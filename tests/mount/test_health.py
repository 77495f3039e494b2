"""What a person sees when hosts go for good, and when others come: file, drive, desktop, numbers."""

from __future__ import annotations

import os
import re
from pathlib import Path

from layrfs.app.notices import PROGRAM
from tests.drive import HostNetwork, layrfs, wait_for
from tests.mount.test_audit import audit
from tests.reliability.churn import hurried

SECONDS = 90.0


def test_danger_is_shown_everywhere_and_passes_when_hosts_come(tmp_path: Path) -> None:
    said = tmp_path / "said"
    program = tmp_path / "bin" / PROGRAM
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{said}\n')
    program.chmod(0o755)
    hosts = HostNetwork(str(tmp_path / "hosts"), 3)
    drive = hurried(str(tmp_path / "drive"), hosts, hurry=1000, patch_after_seconds=1)
    hurry, drive.variables = drive.variables, {}
    with hosts, drive:
        path = os.path.join(drive.path, "only copy")
        Path(path).write_bytes(os.urandom(300_000))
        drive.sync()
        assert os.getxattr(path, "user.layrfs.health") == b"good"
        for number in (1, 2):
            hosts.kill(number)
        audit(drive, path, code=11)  # who asks notices
        away = "all with every piece, but 2 hosts of theirs not seen now"
        wait_for(lambda: away in layrfs(drive.home, "status").stdout, "who is away is said before it counts", SECONDS)
        drive.variables = hurry | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "DISPLAY": ":0"}
        drive.remount()
        wait_for(lambda: os.getxattr(path, "user.layrfs.health") == b"at risk", "the file is at risk", SECONDS)
        page = layrfs(drive.home, "status").stdout
        assert "1 AT RISK" in page
        assert "/only copy" in page
        assert ", at risk" in layrfs(drive.home, "status", path).stdout
        assert 'layrfs_shards{volume="default",health="at risk"} 1' in layrfs(drive.home, "metrics").stdout
        wait_for(lambda: said.exists() and "1 at risk: /only copy" in said.read_text(), "the desktop says so", SECONDS)
        for number in (1, 2):
            hosts.replace(number)
        wait_for(lambda: os.getxattr(path, "user.layrfs.health") == b"good", "the file is well again", SECONDS)
        page = layrfs(drive.home, "status").stdout
        assert "all with every piece" in page
        assert re.search(r"patching +\d+ pieces? made anew", page), "what was healed is said afterwards"
