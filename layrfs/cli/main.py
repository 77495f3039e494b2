"""``layrfs COMMAND``: the table of commands.

A command is a module with ``configure(parser)`` and ``run(arguments) -> exit code``; only the one that is used is
imported, so that ``layrfs --help`` is instant.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from layrfs import __version__
from layrfs.cli.arguments import ArgumentParser
from layrfs.cli.outcome import run_command
from layrfs.errors import UsageError

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("layrfs.cli.init", "create a volume, print its recovery phrase once"),
    "recover": ("layrfs.cli.recover", "bring a volume back on this machine with its recovery phrase"),
    "phrase": ("layrfs.cli.phrase", "show the recovery phrase again"),
    "mount": ("layrfs.cli.mount", "mount a volume (the same as mount.layrfs)"),
    "umount": ("layrfs.cli.umount", "wait until everything is on the network, then unmount"),
    "status": ("layrfs.cli.status", "the drive, or one path, at a glance"),
    "cost": ("layrfs.cli.cost", "what hosts are paid for what is below a path"),
    "metrics": ("layrfs.cli.metrics", "the drive's numbers for Prometheus"),
    "sync": ("layrfs.cli.sync", "wait until everything below a path is on the network"),
    "cache": ("layrfs.cli.cache", "what is kept on this machine; drop what the network has"),
    "pin": ("layrfs.cli.pin", "keep files or directories on this machine"),
    "unpin": ("layrfs.cli.unpin", "let them leave the cache again"),
    "audit": ("layrfs.cli.audit", "ask hosts to prove that they have what is below a path"),
    "patch": ("layrfs.cli.patch", "have what hosts lost made anew, now, and say what cannot be"),
    "gc": ("layrfs.cli.gc", "drop from hosts what neither the volume nor a snapshot needs"),
    "set": ("layrfs.cli.set", "how many copies, how large the shards: policy of a directory"),
    "snapshot": ("layrfs.cli.snapshot", "keep the volume as it is now; list or delete what is kept of its past"),
    "upload": ("layrfs.cli.upload", "put one file into the volume, mounted or not"),
    "list": ("layrfs.cli.list", "what is in the volume, mounted or not"),
    "manifest": ("layrfs.cli.manifest", "print a file's manifest: its shards and their hosts"),
    "download": ("layrfs.cli.download", "fetch the file of a manifest"),
    "net": ("layrfs.cli.net", "show, join or leave a network of hosts"),
    "delegate": ("layrfs.cli.delegate", "have a host audit and repair the volume while this machine is away"),
    "host": ("layrfs.cli.host", "be a host for others"),
    "ledger": ("layrfs.cli.ledger", "run a ledger for development, where lumens cost nothing"),
    "wallet": ("layrfs.cli.wallet", "the volume's lumens: address, balance, history, payments"),
    "fsck": ("layrfs.cli.fsck", "check a volume that is not mounted, and repair it"),
    "doctor": ("layrfs.cli.doctor", "find out what is wrong, and what to do about it"),
    "install-helper": ("layrfs.cli.install_helper", "make `mount -t layrfs` and fstab work"),
}


class CommandModule(Protocol):
    """What each module of the table provides."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit code. Raises LayrError."""


def main() -> int:
    """Entry point of ``layrfs``."""
    return run_command("layrfs", lambda: dispatch(sys.argv[1:]))


def dispatch(arguments: Sequence[str]) -> int:
    """Run what the command line asks for."""
    first = arguments[0] if arguments else "--help"
    if first in {"-h", "--help", "help"}:
        sys.stdout.write(help_text())
        return 0
    if first in {"-V", "--version"}:
        sys.stdout.write(f"layrfs {__version__}\n")
        return 0
    if first not in COMMANDS:
        raise UsageError(f"there is no command {first!r} (layrfs --help lists them)")
    return run_named(first, arguments[1:])


def run_named(name: str, arguments: Sequence[str]) -> int:
    """Parse a command's own arguments and run it."""
    module_name, summary = COMMANDS[name]
    module = cast("CommandModule", importlib.import_module(module_name))
    parser = ArgumentParser(f"layrfs {name}", summary[0].upper() + summary[1:] + ".")
    module.configure(parser)
    return module.run(parser.parse_args(arguments))


def help_text() -> str:
    """The page of ``layrfs --help``."""
    lines = [f"  {name:<15} {summary}" for name, (_module, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: layrfs COMMAND [ARGUMENTS]",
            "",
            "A cloud drive with no cloud company.",
            "",
            *lines,
            "",
            "layrfs COMMAND --help explains one. Exit codes: python3 -m pydoc layrfs.cli.exit_codes",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
