"""What ``mount.py`` says when the drive is there: where it is, what to try, what it does not do."""

from __future__ import annotations

import os
import shutil
import sys

from layrfs.config import NetworkConfig, Paths


def greeting(paths: Paths, mountpoint: str) -> str:
    """A short page."""
    layrfs = layrfs_command()
    network = NetworkConfig.load(paths.network_file)
    lines = [
        f"{mountpoint} is your drive. What you put there is encrypted here and copied to three hosts.",
        "",
        f"  cp -r ~/Pictures {mountpoint}/",
        f"  {layrfs} status",
        f"  {layrfs} umount {mountpoint}      waits until everything is on the hosts",
    ]
    if network is None or network.embedded:
        lines += [
            "",
            "The hosts are all on this machine: good for trying, but no backup yet.",
            f"`{layrfs} host run --space 100G` on other machines makes real ones; README.md goes on from there.",
        ]
    return "\n".join([*lines, ""])


def layrfs_command() -> str:
    """How to call ``layrfs`` from this shell."""
    beside = os.path.join(os.path.dirname(sys.executable), "layrfs")
    found = shutil.which("layrfs")
    if found is not None and os.path.realpath(found) == os.path.realpath(beside):
        return "layrfs"
    return os.path.relpath(beside) if len(os.path.relpath(beside)) < len(beside) else beside
