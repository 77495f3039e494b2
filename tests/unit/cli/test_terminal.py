"""At a terminal: passphrases are asked for, never echoed."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.shell import Shell

PATIENCE_SECONDS = 30.0


class Terminal:
    """Somebody at a keyboard."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor = descriptor
        self._process = process
        self.seen = ""

    def answer(self, question: str, typed: str) -> None:
        """Wait for a prompt that was not answered yet, then type a line."""
        self._read_until(question)
        os.write(self._descriptor, typed.encode() + b"\n")

    def end(self) -> int:
        """Everything up to the end; the exit code."""
        self._read_until(None)
        return self._process.wait(PATIENCE_SECONDS)

    def _read_until(self, words: str | None) -> None:
        start = len(self.seen)
        while words is None or words not in self.seen[start:]:
            assert select.select([self._descriptor], [], [], PATIENCE_SECONDS)[0], self.seen
            try:
                self.seen += os.read(self._descriptor, 4096).decode()
            except OSError:  # the other side has closed it
                assert words is None, self.seen
                return


@contextmanager
def terminal(shell: Shell, *arguments: str) -> Iterator[Terminal]:
    """Run ``layrfs`` with a terminal of its own."""
    ours, theirs = os.openpty()

    def own_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "layrfs.cli.main", *arguments],
        env=shell.environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=own_terminal,  # noqa: PLW1509  no threads here
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


def test_a_passphrase_is_asked_for_twice_then_once_and_not_echoed(shell: Shell) -> None:
    with terminal(shell, "init", "--ask-passphrase") as screen:
        screen.answer("Passphrase: ", "open sesame")
        screen.answer("Again: ", "open sesame")
        assert screen.end() == 0
        assert "recovery phrase" in screen.seen
        assert "sesame" not in screen.seen
    with terminal(shell, "phrase") as screen:
        screen.answer("Passphrase: ", "open sesame")
        assert screen.end() == 0
        assert "24 " in screen.seen
    with terminal(shell, "phrase") as screen:
        screen.answer("Passphrase: ", "wrong")
        assert screen.end() == 7


def test_two_different_passphrases_change_nothing(shell: Shell) -> None:
    with terminal(shell, "init", "--ask-passphrase") as screen:
        screen.answer("Passphrase: ", "one")
        screen.answer("Again: ", "two")
        assert screen.end() == 2
    assert not shell.home.exists()


def test_ctrl_c_at_the_prompt(shell: Shell) -> None:
    with terminal(shell, "init", "--ask-passphrase") as screen:
        screen.answer("Passphrase: ", "\x03")
        assert screen.end() == 130
        assert "Traceback" not in screen.seen
    assert not shell.home.exists()
