"""The one place where a command's errors become a sentence on standard error and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable

from layrfs.cli import exit_codes
from layrfs.errors import LayrError, innermost


def run_command(program: str, command: Callable[[], int]) -> int:
    """Run it; the exit code. Never a traceback, unless $LAYRFS_DEBUG is set."""
    try:
        code = command()
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  whatever it is, a person must be told in one sentence
        return explain(program, innermost(error))
    return code


def explain(program: str, error: BaseException) -> int:
    """Say what happened on standard error; the exit code."""
    if os.environ.get("LAYRFS_DEBUG") and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else exit_codes.DONE
        case BrokenPipeError():
            _discard_output()
            return exit_codes.BROKEN_PIPE
        case KeyboardInterrupt():
            return _say(program, "interrupted", exit_codes.INTERRUPTED)
        case LayrError():
            return _say(program, str(error), exit_codes.exit_code_of(error))
        case OSError():
            return _say(program, _sentence(error), exit_codes.FAILED)
        case MemoryError():
            return _say(program, "this machine has no memory left", exit_codes.FAILED)
    what = f"an error inside LayrFS: {type(error).__name__}: {error} (LAYRFS_DEBUG=1 shows where)"
    return _say(program, what, exit_codes.INTERNAL)


def _say(program: str, sentence: str, code: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{program}: {sentence}\n")
    return code


def _sentence(error: OSError) -> str:
    text = error.strerror or str(error)
    if error.filename is None:
        return text
    name = os.fsdecode(error.filename) if isinstance(error.filename, bytes | str) else str(error.filename)
    return f"{name}: {text}"


def _discard_output() -> None:
    """Nobody reads any more; the interpreter shall not complain at exit (the `signal` module's documentation)."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
