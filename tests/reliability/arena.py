"""A drive whose processes are killed again and again, with hosts that outlive it, and the bookkeeping of promises.

Owns processes: five hosts in one (``layrfs.app.embedded``, started here, so that it does not die with the mount), the
mount, and the workload. Must not decide what is killed or when: ``tests.reliability.kills`` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Self

from layrfs.config import DEFAULT_VOLUME, Paths
from layrfs.control import commands
from layrfs.control.client import ControlClient
from layrfs.crashpoints import VARIABLE
from tests.drive import REPOSITORY, START_SECONDS, Drive, Failed, end, environment, kill, processes_of, wait_for
from tests.reliability.promises import Promises

WORKING = "work"
"""The directory of the mount that the workload uses."""


class Network:
    """Five hosts on loopback in one process, on the same ports whenever it is started again."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        os.makedirs(directory, exist_ok=True)

    @property
    def seeds(self) -> list[str]:
        """What ``--seed`` takes."""
        with open(os.path.join(self.directory, "seeds.json"), encoding="ascii") as file:
            seeds: list[str] = json.load(file)["seeds"]
        return seeds

    def start(self, variables: Mapping[str, str] | None = None) -> None:
        """Returns when all five are ready."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "layrfs.app.embedded", self.directory],
            env=environment(self.directory) | dict(variables or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            raise Failed("the hosts did not start")

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self._reap()

    def has_died(self) -> bool:
        """Whether it ended by itself."""
        assert self.process is not None
        return self.process.poll() is not None

    def restart(self, variables: Mapping[str, str] | None = None) -> None:
        """Killed or dead already, and started again."""
        self.kill()
        self.start(variables)

    def close(self) -> None:
        if self.process is not None:
            end(self.process)
            self._reap()

    def _reap(self) -> None:
        assert self.process is not None
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Arena:
    """One drive in ``directory``, mounted now or not."""

    def __init__(self, directory: str, *, options: Sequence[str] = ("upload_after=0",)) -> None:
        self.directory = directory
        self.network = Network(os.path.join(directory, "network"))
        self.network.start()
        self.drive = Drive(os.path.join(directory, "drive"), seeds=self.network.seeds, options=options)
        self.promises = Promises()
        self.notes_read = 0
        self.workload: subprocess.Popen[bytes] | None = None
        self.notes = os.path.join(directory, "notes")
        self._flag = os.path.join(directory, "armed")
        with open(self.notes, "ab"):
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_workload()
        self.drive.close()
        self.network.close()

    @property
    def root(self) -> str:
        """Where the workload works."""
        return os.path.join(self.drive.path, WORKING)

    @property
    def database(self) -> str:
        """The volume's metadata."""
        return Paths.under(self.drive.home).database(DEFAULT_VOLUME)

    @property
    def cache(self) -> str:
        """The volume's cache files."""
        return Paths.under(self.drive.home).cache_dir(DEFAULT_VOLUME)

    @property
    def client(self) -> ControlClient:
        """Asks the mounted drive."""
        return ControlClient(Paths.under(self.drive.home).control_socket(DEFAULT_VOLUME))

    # ------------------------------------------------------------------ crash points

    def arm(self, point: str, times: int = 1) -> dict[str, str]:
        """Variables for a process that is to die at a point, once."""
        with open(self._flag, "wb"):
            pass
        return {VARIABLE: f"{point}@{times}@{self._flag}"}

    def has_crashed(self) -> bool:
        """Whether somebody died at the armed point."""
        return not os.path.exists(self._flag)

    # ----------------------------------------------------------------------- the drive

    def mount(self, variables: Mapping[str, str] | None = None) -> None:
        """Mount; a person is never needed for that."""
        self.drive.variables = dict(variables or {})
        self.drive.mount()

    def crash(self) -> None:
        """End what is left of the mount's processes, and take its mount away."""
        self.drive.crash()

    def sync(self) -> None:
        """As ``layrfs sync``."""
        self.client.call(commands.SYNC, commands.AtPath(b"/"))

    def drop_cache(self) -> None:
        """As ``layrfs cache drop``."""
        self.client.call(commands.CACHE_DROP, commands.Nothing())

    def read_all(self) -> None:
        """Every file at the top of what the workload made."""
        for name in os.listdir(self.root):
            path = os.path.join(self.root, name)
            if os.path.isfile(path):
                with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                    file.read()

    # ---------------------------------------------------------------------- the workload

    def start_workload(self, seed: int) -> None:
        """In a process of its own, until it is stopped or the drive is gone."""
        command = [sys.executable, "-m", "tests.reliability.workload", self.root, str(seed), self.notes]
        with open(os.path.join(self.directory, "workload.out"), "ab") as output:
            self.workload = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output)

    def notes_written(self) -> int:
        """Bytes of notes so far: how far the workload has come."""
        return os.stat(self.notes).st_size

    def wait_for_notes(self, more_bytes: int) -> None:
        """Until the workload has come further, or has ended."""
        wanted = self.notes_written() + more_bytes
        wait_for(lambda: self.notes_written() >= wanted or self.has_ended(), "the workload works", START_SECONDS)

    def has_ended(self) -> bool:
        """Whether the workload is over."""
        return self.workload is None or self.workload.poll() is not None

    def stop_workload(self) -> None:
        """Kill it if need be, and take what it was promised."""
        if self.workload is not None:
            self.workload.kill()
            self.workload.wait()
            self.workload = None
        self.take_notes()

    def take_notes(self) -> None:
        """Learn what was promised since the last time."""
        with open(self.notes, "rb") as file:
            file.seek(self.notes_read)
            complete = file.read().rpartition(b"\n")[0]
        for line in filter(None, complete.split(b"\n")):
            self.promises.take(json.loads(line))
        self.notes_read += len(complete) + 1 if complete else 0

    def kill_workers(self) -> int:
        """SIGKILL to all workers of the mount; how many."""
        workers = self.drive.pids("layrfs.worker")
        for pid in workers:
            kill(pid)
        return len(workers)

    def kill_everything(self) -> None:
        """The mount, its workers and the hosts, as much at once as can be."""
        assert self.drive.process is not None
        for pid in [self.drive.process.pid, *processes_of(self.drive.home)]:
            kill(pid)
        self.network.kill()
        self.crash()
