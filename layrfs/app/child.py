"""How a process of ours that another one started ends: with a code, and with one sentence when something went wrong.

Must not know what the process does.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from layrfs import logs
from layrfs.errors import LayrError, innermost


def exit_code_of(program: Callable[[], object], log: logging.Logger) -> int:
    """0, or 1 after a sentence to the log and to standard error. A mistake of ours is raised."""
    try:
        program()
    except BaseException as error:
        cause = innermost(error)
        if not isinstance(cause, LayrError | OSError):
            raise
        logs.log_failure(log, "ended", cause)
        sys.stderr.write(f"{cause}\n")
        return 1
    return 0
