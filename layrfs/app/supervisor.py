"""Keeps a process of ours running for as long as this process lives: the embedded network, and the ledger beside it.

Owns the child and its restarts; must not know what the child does beyond ``ready`` on its standard output.
Invariant: the child's standard input is a pipe only we hold, so it ends when we do, however we end.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

import msgspec
import trio

from layrfs.errors import LocalError
from layrfs.pipeline.pool import KEEP_MEMORY
from layrfs.policy.backoff import NO_FAILURES

_log = logging.getLogger(__name__)

START_SECONDS = 30.0
STOP_SECONDS = 8.0
OUTPUT_LIMIT = 4096

FoundT = TypeVar("FoundT")


class Seeds(msgspec.Struct, frozen=True):
    """How to reach the embedded network; ``seeds`` are HOST:PORT."""

    network_id: bytes
    seeds: tuple[str, ...]


def read_seeds(directory: str) -> Seeds | None:
    """What the embedded network last published in ``directory``, or None when it never ran."""
    try:
        with open(os.path.join(directory, "seeds.json"), "rb") as file:
            fields = json.load(file)
        return Seeds(bytes.fromhex(fields["network_id"]), tuple(fields["seeds"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Supervisor(Generic[FoundT]):
    """One child process, which is started again when it ends."""

    def __init__(self, name: str, command: Sequence[str], directory: str, find: Callable[[], FoundT | None]) -> None:
        """``find``: what the child publishes in its directory; what it published last time is good enough to go on."""
        self._name = name
        self._command = command
        self._directory = directory
        self._find = find
        self.restarts = 0
        self.process_id: int | None = None

    async def run(self, *, task_status: trio.TaskStatus[FoundT] = trio.TASK_STATUS_IGNORED) -> None:
        """Start, report once what it published, restart for ever; on cancellation end the child and wait for it.

        Raises ``LocalError`` when the very first start, one before which nothing was ever published, fails.
        """
        failures = NO_FAILURES
        known = self._find()
        if known is not None:
            task_status.started(known)
        while True:
            known, how = await self._live(known, task_status)
            if known is None:
                raise LocalError(f"the {self._name} cannot be started: {how}")
            self.restarts += 1
            failures = failures.after_failure(trio.current_time())
            _log.warning("The %s ended (%s) and is started again", self._name, how)
            await trio.sleep(min(10.0, 0.2 * 2 ** min(failures.in_a_row, 6)))

    async def _live(self, known: FoundT | None, task_status: trio.TaskStatus[FoundT]) -> tuple[FoundT | None, str]:
        """Once, to its end; what it has published, and how it ended. No process or memory for it is an end as well."""
        try:
            process = await self._start()
        except OSError as error:
            return known, error.strerror or str(error)
        try:
            if known is None:
                known = await self._ready(process)
                task_status.started(known)
            await process.wait()
        finally:
            await _end(process)
        return known, f"status {process.returncode}"

    async def _start(self) -> trio.Process:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **KEEP_MEMORY},
            process_group=0,  # Ctrl-C is for us; but one session, or the scheduler would not compare our priorities
        )
        self.process_id = process.pid
        return process

    async def _ready(self, process: trio.Process) -> FoundT:
        """What it publishes appears before it says that it is ready."""
        with trio.move_on_after(START_SECONDS):
            await _hear_ready(process)
        found = self._find()
        if found is None:
            raise LocalError(f"the {self._name} did not start; its log is in {self._directory}")
        return found


def embedded_network(directory: str, words: Sequence[str] = ()) -> Supervisor[Seeds]:
    """``words``: what it is told beside its directory."""
    command = ("layrfs.app.embedded", directory, *words)
    return Supervisor("embedded network", command, directory, partial(read_seeds, directory))


async def _hear_ready(process: trio.Process) -> None:
    """Until the child says ``ready``, or ends."""
    assert process.stdout is not None  # noqa: S101 - asked for in _start
    heard = b""
    while b"ready" not in heard:
        chunk = await process.stdout.receive_some(OUTPUT_LIMIT)
        if not chunk:
            return
        heard = (heard + chunk)[-OUTPUT_LIMIT:]


async def _end(process: trio.Process) -> None:
    """End our child: first politely (its standard input closes), then by signal."""
    with trio.CancelScope(shield=True):
        if process.stdin is not None:
            await process.stdin.aclose()
        with trio.move_on_after(STOP_SECONDS):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()
