"""``layrfs phrase``: the recovery phrase again, for who has the key file and its passphrase."""

from __future__ import annotations

import argparse
import sys

from layrfs.cli.arguments import add_passfile, add_volume
from layrfs.cli.init import phrase_page
from layrfs.cli.locating import chosen_volume
from layrfs.cli.passphrase import asker
from layrfs.config import Paths


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_volume(parser)
    add_passfile(parser)


def run(arguments: argparse.Namespace) -> int:
    """To a terminal as a page, to a pipe as one line."""
    from layrfs.storage.keyring import load_phrase

    paths = Paths.from_environment()
    paths.check()
    volume = chosen_volume(paths, arguments.volume)
    phrase = load_phrase(paths.volume_key(volume), asker(arguments.passfile))
    sys.stdout.write(phrase_page(phrase) if sys.stdout.isatty() else f"{phrase}\n")
    return 0
