"""Host processes of tests: started, heard, and ended by pid whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SECONDS = 60.0
"""How long a test waits for what has to come; it comes within one or two."""


class Child:
    """A process whose lines are read as they come."""

    def __init__(self, arguments: Sequence[str], home: Path) -> None:
        self.lines: list[str] = []
        self._heard = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=os.environ | {"LAYRFS_HOME": str(home), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._heard:
                self.lines.append(line.rstrip())
                self._heard.notify_all()

    def says(self, word: str) -> str:
        """The first line that starts with the word, once it comes."""
        with self._heard:
            came = self._heard.wait_for(lambda: self._line(word) is not None, SECONDS)
        assert came, f"{word!r} did not come: {self.lines}"
        return self._line(word) or ""

    def _line(self, word: str) -> str | None:
        return next((line for line in self.lines if line.startswith(word)), None)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it; its exit status."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Its exit status, when it ends by itself."""
        status = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return status

    def close_input(self) -> None:
        """What happens when a parent dies."""
        assert self.process.stdin is not None
        self.process.stdin.close()


@contextlib.contextmanager
def child(*arguments: str, home: Path) -> Iterator[Child]:
    """A process that is gone after the block."""
    started = Child(arguments, home)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        started._reader.join(SECONDS)
        for stream in (started.process.stdin, started.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


def wait_for(true: Callable[[], bool], what: str) -> None:
    """Until it is; fails after a while."""
    until = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < until, f"never: {what}"
        time.sleep(0.05)
