"""``mount.layrfs [VOLUME] MOUNTPOINT``: by hand, as mount(8)'s helper, from fstab, and behind ``mount.py``.

What can be wrong is found out in the foreground before anything is created; then this program starts itself with ``-f``
in the background and returns when the drive answers. Importing this needs the standard library only.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import os
import sys
from collections.abc import Sequence

from layrfs.cli.arguments import ArgumentParser
from layrfs.cli.mount_request import MountRequest
from layrfs.cli.mountpoint import Stale, check_fuse, check_mountpoint, mount_at, unmount
from layrfs.cli.outcome import run_command
from layrfs.config import DEFAULT_VOLUME, MountOptions, Paths, option_value, valid_volume_name
from layrfs.errors import LocalError, NotRunning, NoVolume, StateInUse, UsageError

_NO_DEVICE = frozenset({"none", "layrfs"})
_EPILOG = """\
options (-o, comma-separated):
  cache_size=20G        most that is kept on this machine [10 % of the free disk, at most 20G]
  patch_after=259200    seconds a host may be silent before what it has is made anew elsewhere; at most 3 days
  upload_after=2        seconds a closed file lies still before it is uploaded
  fsync=local           what fsync waits for: this disk, or with fsync=network also hosts and root record
  workers=2             processes that compress, encrypt and talk to hosts
  answers=4             digests made of each piece to ask its host for later, each once; 0: none
  instalments=4         parts in which hosts that are paid get their money
  contract_period=2592000  seconds that a contract with such a host is for
  host_price=2          XLM that hosts of the embedded network ask for a TiB and 30 days, on a ledger of its own
  listen=0.0.0.0:0      address other nodes reach this one at [any port]
  ro                    read only
  take_over             write here although another machine does; it turns read-only
  allow_other           other users of this machine may look in (their permission bits count)
  nowriteback, nonempty
  home=DIR              state directory, for fstab [$LAYRFS_HOME, or the XDG directories]
  passfile=FILE         the passphrase of the key file, for fstab
  nosuid, nodev, noexec, noatime, sync, dirsync   as for every file system
Options that only mount(8) needs (defaults, noauto, user, _netdev, x-systemd...) are accepted.
"""


def main() -> int:
    """Entry point of ``mount.layrfs``."""
    return run_command("mount.layrfs", lambda: mount(parse(sys.argv[1:])))


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments: those of mount(8)'s helpers and a few of ours."""
    parser.usage = f"{parser.prog} [VOLUME] MOUNTPOINT [-o OPTIONS] [-f]"
    parser.epilog = _EPILOG
    parser.add_argument("places", nargs="+", metavar="[VOLUME] MOUNTPOINT", help="which volume, mounted where")
    parser.add_argument("-o", action="append", default=[], metavar="OPTIONS", dest="options", help="see below")
    parser.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground, log to the terminal")
    parser.add_argument("-r", "--read-only", action="store_true", help="the same as -o ro")
    parser.add_argument("-w", "--read-write", action="store_true", help="the same as -o rw")
    parser.add_argument("--take-over", action="store_true", help="the same as -o take_over")
    parser.add_argument("-v", "--verbose", action="store_true", help="say where it is mounted even without a terminal")
    parser.add_argument("-s", "--sloppy", action="store_true", help="ignore unknown options")
    parser.add_argument("-n", "--no-mtab", action="store_true", help="accepted; there is no mtab any more")
    parser.add_argument("-t", "--type", metavar="TYPE", help="accepted for mount(8)")
    parser.add_argument("--passfile", metavar="FILE", help="the passphrase is this file's first line")
    parser.add_argument("--clean", action="store_true", help="clean up what a dead drive left mounted there")
    for hidden in ("--set-up", "--no-mount"):
        parser.add_argument(hidden, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)


def parse(arguments: Sequence[str], program: str = "mount.layrfs") -> MountRequest:
    """Raises UsageError; touches nothing."""
    parser = ArgumentParser(program, "Mount a LayrFS volume.")
    configure(parser)
    return request_from(parser.parse_intermixed_args(arguments))


def request_from(found: argparse.Namespace) -> MountRequest:
    """Make sense of the parsed arguments."""
    places: list[str] = found.places
    most = 1 if found.no_mount else 2
    if len(places) > most:
        raise UsageError(f"too many arguments: {' '.join(places[most:])} (mount.layrfs --help explains)")
    mountpoint = None if found.no_mount else places[-1]
    device = places[0] if len(places) > 1 or found.no_mount else None
    switches = {"ro": found.read_only, "rw": found.read_write, "take_over": found.take_over}
    text = ",".join([*found.options, *(name for name, chosen in switches.items() if chosen)])
    named = (None if device in _NO_DEVICE else device) or option_value(text, "volume")
    return MountRequest(
        volume=valid_volume_name(named or os.environ.get("LAYRFS_VOLUME") or DEFAULT_VOLUME),
        volume_named=named is not None,
        mountpoint=mountpoint,
        options=_checked(_options(text, sloppy=found.sloppy)),
        option_text=text,
        passfile=_absolute(found.passfile or option_value(text, "passfile")),
        home=option_value(text, "home"),
        foreground=found.foreground,
        ready_fd=found.ready_fd,
        set_up=found.set_up,
        clean=found.clean,
        talkative=found.verbose or found.set_up or sys.stdout.isatty(),
    )


def run(arguments: argparse.Namespace) -> int:
    """``layrfs mount``."""
    return mount(request_from(arguments))


def mount(request: MountRequest) -> int:
    """Do what was asked; the exit code."""
    if request.ready_fd is not None:
        return _serve(request)
    paths = request.paths()
    paths.check()
    mountpoint = checked_mountpoint(request)
    request = _with_existing_volume(request, paths)
    if request.foreground:
        return _serve(request)
    _refuse_second(paths, request.volume)
    _check_port(*request.options.listen)
    from layrfs.cli.background import start_drive
    from layrfs.cli.passphrase import asker

    start_drive(paths, request.volume, _arguments_again(request, mountpoint), asker(request.passfile))
    _greet(request, paths, mountpoint)
    return 0


def checked_mountpoint(request: MountRequest) -> str:
    """Where to mount, after everything that could be in the way. Raises BadMountpoint or NoFuse; may clean."""
    if request.mountpoint is None:
        return ""
    try:
        directory = check_mountpoint(request.mountpoint, nonempty=request.options.nonempty)
    except Stale:
        directory = os.path.realpath(request.mountpoint)
        if not request.clean and not _agrees(f"{request.mountpoint} is left over from a drive that died. Clean it up?"):
            raise
        unmount(directory, lazily=True)
        return checked_mountpoint(request)
    check_fuse(allow_other=request.options.allow_other)
    return directory


def _with_existing_volume(request: MountRequest, paths: Paths) -> MountRequest:
    """Create the first volume when a person is there to read its phrase. Raises NoVolume when none shall be made."""
    known = paths.volumes()
    if request.volume in known:
        return request
    if not request.volume_named and len(known) == 1:
        return dataclasses.replace(request, volume=known[0])
    if known:
        raise NoVolume(f"there is no volume {request.volume!r} on this machine; there is {', '.join(known)}")
    if not request.set_up and not sys.stdout.isatty():
        raise NoVolume("there is no volume on this machine yet, and nobody to show its phrase to: `layrfs init` first")
    from layrfs.cli.init import create_volume, show_phrase
    from layrfs.cli.passphrase import given_passphrase

    show_phrase(create_volume(paths, request.volume, given_passphrase(request.passfile)))
    return request


def _refuse_second(paths: Paths, volume: str) -> None:
    from layrfs.control.client import ControlClient
    from layrfs.control.commands import STATUS, Nothing

    try:
        where = ControlClient(paths.control_socket(volume)).call(STATUS, Nothing()).mountpoint
    except (NotRunning, LocalError):
        return  # there is none, or it ends just now, which is waited for
    if not where:
        raise StateInUse(f"volume {volume} is in use by another command just now")
    if mount_at(where) is not None:
        raise StateInUse(f"volume {volume} is in use already, mounted at {where}")


def _check_port(host: str, port: int) -> None:
    """A port that is taken is said here, where somebody listens; the drive finds it out only after it is mounted."""
    if not port:
        return
    import socket

    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except socket.gaierror as error:
        raise UsageError(f"listen={host}:{port}: {host} is no address of this machine") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StateInUse(f"UDP port {port} of {host} is in use by another program") from error
        raise UsageError(f"this machine cannot listen at {host}:{port}: {error.strerror}") from error


def _arguments_again(request: MountRequest, mountpoint: str) -> list[str]:
    words = [f"-o{request.option_text}"] if request.option_text else []
    return [*words, "-s", "--", request.volume, mountpoint]


def _serve(request: MountRequest) -> int:
    from layrfs.cli.serve import serve

    return serve(request)


def _greet(request: MountRequest, paths: Paths, mountpoint: str) -> None:
    if request.set_up:
        from layrfs.cli.greeting import greeting

        sys.stdout.write(greeting(paths, mountpoint))
    elif request.talkative:
        sys.stdout.write(f"volume {request.volume} is mounted at {mountpoint}\n")


def _options(text: str, *, sloppy: bool) -> MountOptions:
    if not sloppy:
        return MountOptions.parse(text)
    known = []
    for word in text.split(","):
        try:
            MountOptions.parse(word)
        except UsageError:
            continue
        known.append(word)
    return MountOptions.parse(",".join(known))


def _checked(options: MountOptions) -> MountOptions:
    if options.read_only and options.take_over:
        raise UsageError("ro and take_over contradict each other: a read-only mount takes nothing over")
    return options


def _agrees(question: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{question} [Y/n] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"", "y", "yes"}


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(os.path.expanduser(path))


if __name__ == "__main__":
    sys.exit(main())
