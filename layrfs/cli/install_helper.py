"""``layrfs install-helper``: puts ``mount.layrfs`` where mount(8) looks, so that ``mount -t layrfs`` and fstab work.

With ``--systemd`` a unit ``layrfs@.service`` instead: for the user who runs this, or, as root, for the whole system.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shlex
import sys

from layrfs.cli.rendering import say
from layrfs.cli.systemd_unit import UNIT, system_unit, user_unit
from layrfs.durable import write_atomically
from layrfs.errors import LocalError, NotFound

_HELPERS = ("mount.layrfs", "mount.fuse.layrfs")
_COMMAND = "layrfs"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("--sbin", metavar="DIR", default="/sbin", help="where mount(8) looks for helpers [/sbin]")
    parser.add_argument("--bin", metavar="DIR", default="/usr/local/bin", help="where to put `layrfs` [/usr/local/bin]")
    parser.add_argument("--systemd", action="store_true", help="instead: a unit that mounts at login (root: at boot)")
    parser.add_argument("--units", metavar="DIR", help="where systemd looks for units")
    parser.add_argument("--remove", action="store_true", help="take them away again")


def run(arguments: argparse.Namespace) -> int:
    """As root. Only files that this command wrote are replaced or removed."""
    if arguments.systemd:
        return _handle_unit(arguments)
    wanted = {os.path.join(arguments.sbin, name): "mount.layrfs" for name in _HELPERS}
    wanted[os.path.join(arguments.bin, _COMMAND)] = _COMMAND
    for path in wanted:
        _check(path)
    for path, program in wanted.items():
        if arguments.remove:
            _remove(path)
        else:
            _install(path, _beside_python(program))
            say(path)
    return 0


def _handle_unit(arguments: argparse.Namespace) -> int:
    directory = arguments.units or _unit_directory()
    path = os.path.join(directory, UNIT)
    if os.path.lexists(path) and not _is_our_unit(path):
        raise LocalError(f"{path} exists and was not put there by this command; move it away first")
    if arguments.remove:
        _remove(path)
        return 0
    os.makedirs(directory, exist_ok=True)
    write_atomically(path, _unit_text().encode())
    os.chmod(path, 0o644)
    instance = f"layrfs@$(systemd-escape --path ~{_owner() if _is_system() else ''}/cloud)"
    user = "" if _is_system() else " --user"
    say(path, f"systemctl{user} daemon-reload && systemctl{user} enable --now {instance}")
    return 0


def _is_system() -> bool:
    return os.geteuid() == 0


def _owner() -> str:
    """For whom root installs: who called sudo."""
    return os.environ.get("SUDO_USER", "root")


def _unit_directory() -> str:
    if _is_system():
        return "/etc/systemd/system"
    configuration = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(configuration, "systemd", "user")


def _unit_text() -> str:
    program = _beside_python(_COMMAND)
    if not _is_system():
        return user_unit(program)
    try:
        home = pwd.getpwnam(_owner()).pw_dir
    except KeyError:
        raise NotFound(f"there is no user {_owner()}") from None
    return system_unit(program, _owner(), home)


def _is_our_unit(path: str) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline() == user_unit("").partition("\n")[0] + "\n"


def _check(path: str) -> None:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise NotFound(f"there is no directory {directory}")
    if not os.access(directory, os.W_OK):
        again = shlex.join([_beside_python(_COMMAND), *sys.argv[1:]])
        raise LocalError(f"only root may write to {directory}: sudo {again}")
    if os.path.lexists(path) and not _is_ours(path):
        raise LocalError(f"{path} exists and was not put there by this command; move it away first")


def _install(path: str, program: str) -> None:
    write_atomically(path, f'{_first_lines()}exec {shlex.quote(program)} "$@"\n'.encode())
    os.chmod(path, 0o755)  # noqa: S103  everybody may mount


def _remove(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)


def _first_lines() -> str:
    return "#!/bin/sh\n# Written by `layrfs install-helper`.\n"


def _is_ours(path: str) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(len(_first_lines())) == _first_lines()


def _beside_python(program: str) -> str:
    path = os.path.join(os.path.dirname(sys.executable), program)
    if not os.path.exists(path):
        raise NotFound(f"{path} is missing; run `python3 mount.py` or `pip install .` again")
    return path
