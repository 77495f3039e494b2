"""Keeps the embedded network's process running for as long as this process lives.

Owns the child and its restarts; must not know what the child does beyond ``ready`` on its standard output.
Invariant: the child's standard input is a pipe only we hold, so it ends when we do, however we end.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence

import msgspec
import trio

from layrfs.errors import LocalError
from layrfs.pipeline.pool import KEEP_MEMORY
from layrfs.policy.backoff import NO_FAILURES

_log = logging.getLogger(__name__)

START_SECONDS = 30.0
STOP_SECONDS = 8.0
OUTPUT_LIMIT = 4096


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


class EmbeddedSupervisor:
    """One child process, ``python -m layrfs.app.embedded DIRECTORY``, started again when it ends."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.restarts = 0
        self.process_id: int | None = None

    async def run(self, *, task_status: trio.TaskStatus[Seeds] = trio.TASK_STATUS_IGNORED) -> None:
        """Start, report the seeds once, restart for ever; on cancellation end the child and wait for it.

        Raises ``LocalError`` when the very first start never gets ready.
        """
        failures = NO_FAILURES
        known = read_seeds(self._directory)
        if known is not None:
            task_status.started(known)
        while True:
            process = await self._start()
            try:
                if known is None:
                    known = await self._ready(process)
                    task_status.started(known)
                await process.wait()
            finally:
                await _end(process)
            self.restarts += 1
            failures = failures.after_failure(trio.current_time())
            _log.warning("The embedded network ended with status %s and is started again", process.returncode)
            await trio.sleep(min(10.0, 0.2 * 2**failures.in_a_row))

    async def _start(self) -> trio.Process:
        command: Sequence[str] = [sys.executable, "-m", "layrfs.app.embedded", self._directory]
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **KEEP_MEMORY},
            process_group=0,  # Ctrl-C is for us; but one session, or the scheduler would not compare our priorities
        )
        self.process_id = process.pid
        return process

    async def _ready(self, process: trio.Process) -> Seeds:
        """The seeds file appears before the child says that it is ready."""
        with trio.move_on_after(START_SECONDS):
            await _hear_ready(process)
        found = read_seeds(self._directory)
        if found is None:
            raise LocalError("the embedded network did not start; its log is in " + self._directory)
        return found


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
