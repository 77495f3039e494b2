"""What is mounted where, and whether a drive can be mounted at a directory. Standard library only (``mount.py``)."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass

from layrfs.errors import BadMountpoint, NoFuse, UsageError

FUSE_DEVICE = "/dev/fuse"
FUSE_CONFIGURATION = "/etc/fuse.conf"
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table."""

    directory: str
    kind: str
    source: str

    @property
    def is_fuse(self) -> bool:
        """Whether a process answers for it."""
        return self.kind == "fuse" or self.kind.startswith("fuse.")

    @property
    def is_layrfs(self) -> bool:
        """Whether it is one of ours."""
        return self.kind == "fuse.layrfs"


class Stale(BadMountpoint):
    """A drive that died is still mounted there; ``clean`` helps."""


def mounts(table: str = "/proc/self/mountinfo") -> list[Mount]:
    """The mount table, in order: of two at the same directory the later one is on top."""
    with open(table, encoding="utf-8", errors="surrogateescape") as lines:
        return [_parse_mount(line) for line in lines]


def mount_at(directory: str) -> Mount | None:
    """What is mounted exactly there."""
    found = [mount for mount in mounts() if mount.directory == directory]
    return found[-1] if found else None


def is_stale(directory: str) -> bool:
    """Whether the file system there has lost its process. statvfs(2), as the kernel answers stat(2) from memory."""
    try:
        os.statvfs(directory)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def check_mountpoint(path: str, *, nonempty: bool = False) -> str:
    """The absolute path to mount at. Raises BadMountpoint with one sentence; Stale when cleaning would help."""
    directory = os.path.realpath(path)
    try:
        mode = os.stat(directory).st_mode
    except OSError as error:
        raise _unusable(path, directory, error) from error
    if not stat.S_ISDIR(mode):
        raise BadMountpoint(f"{path} is not a directory")
    if (mount := mount_at(directory)) is not None and mount.is_fuse:
        if is_stale(directory):
            raise _left_over(path)
        raise BadMountpoint(f"{path} is already mounted ({mount.kind} {mount.source}); `layrfs umount` unmounts it")
    if os.getuid() != 0 and not os.access(directory, os.W_OK):
        raise BadMountpoint(f"{path} cannot be mounted on: you may not write there")
    if not nonempty and _has_entries(path, directory):
        raise BadMountpoint(
            f"{path} is not empty; mounting would hide what is in it (-o nonempty does it all the same)"
        )
    return directory


def check_fuse(*, allow_other: bool = False) -> None:
    """Raises NoFuse with what to do about it."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise NoFuse(_missing_device(error)) from error
    if os.getuid() == 0:
        return
    if shutil.which("fusermount3") is None:
        raise NoFuse("fusermount3 is missing; `apt install fuse3` brings it")
    if allow_other and not others_may_be_allowed():
        raise UsageError(f"allow_other needs a line `user_allow_other` in {FUSE_CONFIGURATION} (root can add it)")


def others_may_be_allowed(configuration: str = FUSE_CONFIGURATION) -> bool:
    """Whether the machine lets ordinary users mount with ``allow_other``."""
    with contextlib.suppress(OSError), open(configuration, encoding="utf-8", errors="replace") as lines:
        return any(line.strip() == "user_allow_other" for line in lines)
    return False


def unmount(directory: str, *, lazily: bool = False) -> None:
    """Unmount, as root or not. Raises BadMountpoint with the kernel's reason."""
    if (helper := shutil.which("fusermount3")) is not None:
        command = [helper, "-u", *(["-z"] if lazily else []), "--", directory]
    else:
        command = ["umount", *(["-l"] if lazily else []), "--", directory]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason was given"]
        raise BadMountpoint(f"{directory} cannot be unmounted: {reason[0].rpartition(': ')[2]}")


def users_of(directory: str) -> list[str]:
    """``name (process)`` of who works in or has open what is below, as far as we may see."""
    found = [process for process in os.listdir("/proc") if process.isdigit() and _uses(process, directory)]
    return [f"{_name_of(process)} ({process})" for process in found]


def _parse_mount(line: str) -> Mount:
    """See proc(5): fixed fields, optional ones, a dash, then type and source."""
    before, _dash, after = line.partition(" - ")
    kind, source = after.split(" ")[:2]
    return Mount(directory=_unescaped(before.split(" ")[4]), kind=kind, source=_unescaped(source))


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _left_over(path: str) -> Stale:
    return Stale(f"{path} is left over from a drive that died; `layrfs umount {path}` cleans it up")


def _unusable(path: str, directory: str, error: OSError) -> BadMountpoint:
    if error.errno == errno.ENOTCONN:
        return _left_over(path)
    if error.errno == errno.ENOENT:
        return BadMountpoint(f"{path} does not exist; `mkdir -p {directory}` first")
    return BadMountpoint(f"{path} cannot be mounted on: {error.strerror}")


def _has_entries(path: str, directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is not None
    except OSError as error:
        raise BadMountpoint(f"{path} cannot be looked into: {error.strerror}") from error


def _missing_device(error: OSError) -> str:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"you may not open {FUSE_DEVICE}; ask root for `chmod 666 {FUSE_DEVICE}`"
    return f"there is no working {FUSE_DEVICE}; `modprobe fuse` as root, or give the container --device {FUSE_DEVICE}"


def _uses(process: str, directory: str) -> bool:
    links = [f"/proc/{process}/cwd", f"/proc/{process}/root"]
    with contextlib.suppress(OSError):
        links += [f"/proc/{process}/fd/{number}" for number in os.listdir(f"/proc/{process}/fd")]
    for link in links:
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            if target == directory or target.startswith(directory.rstrip("/") + "/"):
                return True
    return False


def _name_of(process: str) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
    return "process"
