"""Where a passphrase comes from: a file, the environment, or the keyboard; never the command line, never a log."""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
from collections.abc import Callable

from layrfs.config import is_private
from layrfs.errors import LocalError, UsageError, WrongPassphrase

VARIABLE = "LAYRFS_PASSPHRASE"
_LIMIT_CHARACTERS = 4096


def asker(passfile: str | None) -> Callable[[], str]:
    """Something that answers with the passphrase when it turns out to be needed."""
    return lambda: given_passphrase(passfile) or _ask(twice=False)


def given_passphrase(passfile: str | None) -> str | None:
    """From the file or the environment; None when neither says. Raises LocalError, UsageError."""
    if passfile is not None:
        return _first_line(passfile)
    return os.environ.get(VARIABLE) or None


def new_passphrase(passfile: str | None, *, ask: bool) -> str | None:
    """For a new key file; None: it shall have none."""
    return given_passphrase(passfile) or (_ask(twice=True) if ask else None)


def _first_line(passfile: str) -> str:
    try:
        with open(passfile, encoding="utf-8", errors="surrogateescape") as file:
            line = file.readline(_LIMIT_CHARACTERS).rstrip("\r\n")
        private = is_private(passfile)
    except OSError as error:
        raise LocalError(f"the passphrase file {passfile} cannot be read: {error.strerror}") from error
    if not line:
        raise UsageError(f"the passphrase file {passfile} has an empty first line")
    if not private:
        sys.stderr.write(f"warning: others can read {passfile}; chmod 600 it\n")
    return line


def _ask(*, twice: bool) -> str:
    if not _has_terminal():
        raise WrongPassphrase(f"the passphrase is needed: use --passfile, ${VARIABLE}, or a terminal")
    first = getpass.getpass("Passphrase: ")
    if twice and getpass.getpass("Again: ") != first:
        raise UsageError("the two passphrases differ; nothing was done")
    return first


def _has_terminal() -> bool:
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return True
    return False
