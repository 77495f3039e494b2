"""``layrfs doctor``: what is wrong on this machine, and what to do about it.

Every check is a function that returns a ``Finding``; the table at the end runs them all. Nothing is changed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.metadata
import os
import re
import shutil
import stat
import sys
import time
import tomllib
from collections.abc import Callable, Iterator

import msgspec

from layrfs import __version__
from layrfs.cli import exit_codes
from layrfs.cli.arguments import add_json
from layrfs.cli.mountpoint import FUSE_CONFIGURATION, check_fuse, is_stale, mounts, others_may_be_allowed
from layrfs.cli.rendering import say, say_json, shown_bytes, shown_seconds
from layrfs.config import NetworkConfig, Paths, is_private
from layrfs.control.client import ControlClient
from layrfs.control.commands import NET_SHOW, STATUS, Nothing
from layrfs.errors import LayrError
from layrfs.model.status import NetworkStatus

GOOD, ODD, BAD = "ok", "warning", "problem"
_MARKS = {GOOD: "ok", ODD: "!", BAD: "PROBLEM"}
_LITTLE_SPACE_BYTES = 1 << 30
_CLOCK_LIMIT_SECONDS = 60.0
_NEEDED_FOR_COPIES = 3
_STARTING_SECONDS = 5
_POLL_SECONDS = 0.2


class Finding(msgspec.Struct, frozen=True):
    """What one check found; ``remedy`` is empty when all is well."""

    check: str
    verdict: str
    text: str
    remedy: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """1 when there is a problem."""
    paths = Paths.from_environment()
    findings = [finding for check in CHECKS for finding in _findings(check, paths)]
    if arguments.json:
        say_json(findings)
    else:
        for finding in findings:
            say(f"{_MARKS[finding.verdict]:>8}  {finding.check}: {finding.text}")
            if finding.remedy:
                say(f"          -> {finding.remedy}")
    return exit_codes.FAILED if any(finding.verdict == BAD for finding in findings) else exit_codes.DONE


def check_python(_paths: Paths) -> Iterator[Finding]:
    """The interpreter and the packages pip says we need."""
    missing = [name for name in _required_packages() if not _is_installed(name)]
    if missing:
        remedy = "run `python3 mount.py MOUNTPOINT` or `pip install .` again"
        yield Finding("python", BAD, f"missing: {', '.join(missing)}", remedy)
    else:
        version = ".".join(map(str, sys.version_info[:3]))
        yield Finding("python", GOOD, f"Python {version}, LayrFS {__version__}, every package is there")


def check_kernel(_paths: Paths) -> Iterator[Finding]:
    """/dev/fuse, fusermount3, user_allow_other."""
    try:
        check_fuse()
    except LayrError as error:
        sentence, _, remedy = str(error).partition("; ")
        yield Finding("fuse", BAD, sentence, remedy or "see above")
    else:
        yield Finding("fuse", GOOD, "/dev/fuse can be used")
    if shutil.which("fusermount3") is None:
        yield Finding("fusermount3", BAD, "it is missing", "apt install fuse3")
    if not others_may_be_allowed() and os.getuid() != 0:
        yield Finding(
            "allow_other",
            ODD,
            "only you can see your mounts",
            f"for -o allow_other, root adds a line `user_allow_other` to {FUSE_CONFIGURATION}",
        )


def check_state(paths: Paths) -> Iterator[Finding]:
    """State directory: version, writable, room."""
    try:
        paths.check()
        NetworkConfig.load(paths.network_file)
    except LayrError as error:
        yield Finding("state", BAD, str(error), "move the damaged file away, or update LayrFS")
        return
    place = _existing_parent(paths.data)
    if not os.access(place, os.W_OK):
        yield Finding("state", BAD, f"{place} is not writable", f"chown it to you, or set LAYRFS_HOME ({paths.data})")
        return
    yield Finding("state", GOOD, paths.data)
    free = shutil.disk_usage(place).free
    if free < _LITTLE_SPACE_BYTES:
        yield Finding(
            "disk", BAD, f"only {shown_bytes(free)} free", "make room, or mount with a smaller -o cache_size="
        )
    else:
        yield Finding("disk", GOOD, f"{shown_bytes(free)} free")


def check_keys(paths: Paths) -> Iterator[Finding]:
    """Only the owner may read a key."""
    volumes = paths.volumes()
    if not volumes:
        yield Finding("volumes", ODD, "none yet", "layrfs init")
    for volume in volumes:
        open_files = [path for path in (paths.volume_key(volume), paths.node_key(volume)) if _is_open(path)]
        if open_files:
            yield Finding(
                "keys", BAD, f"others can read {' and '.join(open_files)}", f"chmod 600 {' '.join(open_files)}"
            )
        else:
            yield Finding("keys", GOOD, f"only you can read those of volume {volume}")


def check_mounts(_paths: Paths) -> Iterator[Finding]:
    """Mounts whose process is gone."""
    stale = [mount.directory for mount in mounts() if mount.is_layrfs and is_stale(mount.directory)]
    if not stale:
        yield Finding("mounts", GOOD, "none is left over from a dead drive")
    for directory in stale:
        yield Finding("mounts", BAD, f"{directory} is left over from a dead drive", f"layrfs umount {directory}")


def check_drives(paths: Paths) -> Iterator[Finding]:
    """Every volume's drive, its network and what it complains about."""
    for volume in paths.volumes():
        client = ControlClient(paths.control_socket(volume))
        if not client.is_running():
            yield Finding(f"volume {volume}", ODD, "not mounted", f"mount.layrfs {volume} MOUNTPOINT")
            continue
        status = client.call(STATUS, Nothing())
        place = f"mounted at {status.mountpoint}" if status.mountpoint else "running without a mount"
        yield Finding(f"volume {volume}", GOOD, place)
        for problem in status.problems:
            yield Finding(f"volume {volume}", BAD, problem, f"the log knows more: {paths.log_file(volume)}")
        yield from _network_findings(_settled_network(client))


def _settled_network(client: ControlClient) -> NetworkStatus:
    """The network as the drive sees it; one that has only just started gets a moment to find hosts."""
    while True:
        network = client.call(NET_SHOW, Nothing())
        if network.known_hosts or client.call(STATUS, Nothing()).uptime_seconds >= _STARTING_SECONDS:
            return network
        time.sleep(_POLL_SECONDS)


def check_databases(paths: Paths) -> Iterator[Finding]:
    """Those that a drive found damaged."""
    from layrfs.storage.soundness import read_note

    for volume in paths.volumes():
        if (note := read_note(paths.database(volume))) is not None:
            remedy = f"unmount, then layrfs fsck --repair --volume {volume}"
            yield Finding("database", BAD, f"that of volume {volume} is damaged: {note.reason}", remedy)


def check_embedded(paths: Paths) -> Iterator[Finding]:
    """The five hosts on this machine run when a drive on them does."""
    network = NetworkConfig.load(paths.network_file)
    if network is None or not network.embedded:
        return
    running = any(ControlClient(paths.control_socket(volume)).is_running() for volume in paths.volumes())
    alive = _is_locked(os.path.join(paths.embedded_dir, "lock"))
    if running and not alive:
        yield Finding(
            "embedded network", BAD, "it does not run", "unmount and mount again; its log is in " + paths.embedded_dir
        )
    else:
        yield Finding("embedded network", GOOD, "it runs" if alive else "it starts with the next mount")


def check_clock(paths: Paths) -> Iterator[Finding]:
    """Signed records carry times: a clock far off makes other nodes refuse us."""
    newest = max((_modified(path) for path in (paths.network_file, *_state_files(paths))), default=0.0)
    ahead = newest - time.time()
    if ahead > _CLOCK_LIMIT_SECONDS:
        text = f"this machine's clock is {shown_seconds(ahead)} behind files LayrFS wrote"
        yield Finding("clock", BAD, text, "set it right: timedatectl set-ntp true")
    else:
        yield Finding("clock", GOOD, time.strftime("%Y-%m-%d %H:%M:%S %Z"))


CHECKS: tuple[Callable[[Paths], Iterator[Finding]], ...] = (
    check_python,
    check_kernel,
    check_state,
    check_keys,
    check_mounts,
    check_drives,
    check_databases,
    check_embedded,
    check_clock,
)


def _findings(check: Callable[[Paths], Iterator[Finding]], paths: Paths) -> list[Finding]:
    try:
        return list(check(paths))
    except (LayrError, OSError) as error:
        return [Finding(check.__name__.removeprefix("check_"), BAD, str(error), "see the sentence above")]


def _network_findings(network: NetworkStatus) -> Iterator[Finding]:
    answering = f"{network.reachable_hosts} of {network.known_hosts} known hosts answer"
    if network.reachable_hosts >= _NEEDED_FOR_COPIES:
        yield Finding("hosts", GOOD, answering)
    elif network.reachable_hosts:
        yield Finding(
            "hosts", ODD, f"{answering}: too few for three copies", "start more: layrfs host run --space 100G"
        )
    else:
        seeds = ", ".join(network.seeds) or "none"
        yield Finding("hosts", BAD, answering, f"are the seeds right ({seeds}), and UDP and TCP let through?")
    offset = network.clock_offset_seconds
    if offset is not None and abs(offset) > _CLOCK_LIMIT_SECONDS:
        text = f"this machine's is {shown_seconds(abs(offset))} {'ahead of' if offset > 0 else 'behind'} the hosts'"
        yield Finding("clock", BAD, text, "set it right: timedatectl set-ntp true")


def _required_packages() -> list[str]:
    """Installed by pip: its record says; run from the source tree: its pyproject.toml does."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        wanted = importlib.metadata.requires("layrfs") or []
        return [_bare_name(line) for line in wanted if "extra ==" not in line]
    tree = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(os.path.join(tree, "pyproject.toml"), "rb") as file:
        return [_bare_name(line) for line in tomllib.load(file)["project"]["dependencies"]]


def _bare_name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _existing_parent(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _is_open(path: str) -> bool:
    return os.path.exists(path) and not is_private(path)


def _is_locked(path: str) -> bool:
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _state_files(paths: Paths) -> list[str]:
    return [path for volume in paths.volumes() for path in (paths.volume_key(volume), paths.database(volume))]


def _modified(path: str) -> float:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return found.st_mtime if stat.S_ISREG(found.st_mode) else 0.0
    return 0.0
