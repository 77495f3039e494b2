"""Command lines that answer a mistake with one sentence instead of a page."""

from __future__ import annotations

import argparse
from typing import NoReturn

from layrfs.errors import UsageError


class ArgumentParser(argparse.ArgumentParser):
    """argparse with our manners: no abbreviations, errors as UsageError."""

    def __init__(self, program: str, description: str, *, epilog: str | None = None) -> None:
        super().__init__(
            prog=program,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help explains)")


def add_volume(parser: argparse.ArgumentParser) -> None:
    """``--volume NAME``."""
    parser.add_argument("--volume", metavar="NAME", help="which volume; default: $LAYRFS_VOLUME, or the only one")


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_passfile(parser: argparse.ArgumentParser) -> None:
    """``--passfile F``."""
    parser.add_argument(
        "--passfile", metavar="FILE", help="the passphrase is this file's first line; else $LAYRFS_PASSPHRASE, or asked"
    )
