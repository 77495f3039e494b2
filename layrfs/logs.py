"""A log a person can read: one line for one event, local time, a level, who speaks, a sentence.

Code logs with the standard library's `logging.getLogger(__name__)`; only composition roots and the CLI call
`configure`. Names of files come from anybody who can write into the mount, so control characters never reach a
terminal.
"""

from __future__ import annotations

import io
import logging
import logging.handlers
import os
import sys
import traceback

_MAX_BYTES = 4 * 1024 * 1024
_OLD_FILES = 2


def configure(path: str | None, *, verbose: bool) -> None:
    """Log to the file at `path` (0600, kept below 12 MiB by rotation), or to standard error when None.

    `verbose` adds debug messages and tracebacks. Calling it again replaces what was configured.
    """
    root = logging.getLogger("layrfs")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    handler = _stderr_handler() if path is None else _file_handler(path)
    handler.setFormatter(_ReadableFormatter(tracebacks=verbose))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False


def printable(text: str) -> str:
    """The text without anything that could steer a terminal: control characters become `\\x1b` and the like."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


class _ReadableFormatter(logging.Formatter):
    """`2026-01-31 12:00:00 warning network.links: host 1a2b… is silent`."""

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__(datefmt="%Y-%m-%d %H:%M:%S")
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        when = self.formatTime(record, self.datefmt)
        speaker = record.name.removeprefix("layrfs.")
        line = f"{when} {record.levelname.lower():<7} {speaker}: {printable(record.getMessage())}"
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return line
        if self._tracebacks or record.levelno >= logging.ERROR:
            lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
            return "\n    ".join([line, *map(printable, lines)])
        return f"{line} ({type(error).__name__}: {printable(str(error))})"


class _PrivateFileHandler(logging.handlers.RotatingFileHandler):
    """Every file it opens, the ones after a rotation too, is for its owner only."""

    def _open(self) -> io.TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return open(descriptor, "a", encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name for it
        """A line that a full or broken disk does not take is lost; whoever logs goes on."""


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "backslashreplace").decode("ascii")


def _stderr_handler() -> logging.Handler:
    return logging.StreamHandler(sys.stderr)


def _file_handler(path: str) -> logging.Handler:
    return _PrivateFileHandler(path, maxBytes=_MAX_BYTES, backupCount=_OLD_FILES, encoding="utf-8")


def log_failure(logger: logging.Logger, what: str, error: Exception) -> None:
    """What has failed, and the error's own sentence, which says it all: where it was raised helps nobody."""
    logger.error("%s: %s", what, error)
