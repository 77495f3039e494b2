"""The real drive in a test: the commands a person types, a real mount, its own state directory, nothing left behind.

`Drive` and `HostNetwork` start programs with `subprocess` and know them by pid. They end only what they started: their
own child, and processes whose environment carries the `LAYRFS_HOME` that was made for this test. Every mount is gone
when the `with` block ends, whatever happened inside it.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
START_SECONDS = 120.0
STOP_SECONDS = 90.0
"""Nothing takes as long when all is well, on a machine that is four times slower and busy with other tests either."""

COMMAND_SECONDS = 240.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

FUSE_IS_THERE = os.path.exists("/dev/fuse")


class Failed(AssertionError):
    """A command, a mount or a host did not do what it must; the message carries what it printed."""


def wait_for(condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = STOP_SECONDS) -> None:
    """Wait until another process made `condition` true. They have no virtual clock: only here is polled."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)


def environment(home: str) -> dict[str, str]:
    """The environment of a command whose state is all below `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LAYRFS_", "XDG_"))}
    return kept | {"LAYRFS_HOME": home, "PYTHONPATH": REPOSITORY, "PYTHONFAULTHANDLER": "1"}


def layrfs(
    home: str,
    *arguments: str,
    check: bool = True,
    seconds: float = COMMAND_SECONDS,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """Run one `layrfs` command to its end. `variables` are added to its environment."""
    command = [sys.executable, "-m", "layrfs.cli.main", *arguments]
    done = finished(command, {**environment(home), **variables}, "/", seconds)
    if check and done.returncode:
        raise Failed(f"layrfs {' '.join(arguments)}: exit {done.returncode}\n{said(done)}")
    return done


def finished(
    command: Sequence[str | bytes], variables: dict[str, str], directory: str | None, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with nothing to read and its output kept."""
    return subprocess.run(
        command, env=variables, cwd=directory, timeout=seconds, check=False,
        text=True, errors="replace", capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what a program printed."""
    return f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def is_mounted(mountpoint: str) -> bool:
    """Whether the kernel has a mount there; never touches it, so a hung mount cannot hang the test."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return any(line.split()[4].replace("\\040", " ") == mountpoint for line in lines)


def tail(path: str, length: int = 4000) -> str:
    """The end of a log, for a failure's message."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()[-length:]
    except OSError as error:
        return f"({error})"


# --- processes, by what their environment says ----------------------------------------------------------------------


def processes_of(home: str) -> dict[int, str]:
    """Pid and command line of every live process that was started with this `LAYRFS_HOME`."""
    marker = b"LAYRFS_HOME=" + os.fsencode(home)
    found = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/environ", "rb") as file:
                ours = marker in file.read().split(b"\0")
            if ours and state_of(int(pid)) not in {"Z", "X"}:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    found[int(pid)] = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    found.pop(os.getpid(), None)
    return found


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command name (the first is the state)."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def state_of(pid: int) -> str:
    """One letter; X when there is no such process."""
    try:
        return stat_fields(pid)[0]
    except OSError:
        return "X"


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time these processes used so far; those that are gone count nothing."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = stat_fields(pid)
            total += (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return total


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end(process: subprocess.Popen[bytes] | None, seconds: float = STOP_SECONDS) -> None:
    """End our own child: politely, then not."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- the drive ------------------------------------------------------------------------------------------------------


class Drive:
    """One volume in its own state directory and the place it is mounted at.

    `directory` gets `home` (state) and `mnt` (the mountpoint); `seeds` join a network instead of the embedded one.
    """

    def __init__(self, directory: str, *, options: Sequence[str] = (), seeds: Sequence[str] = ()) -> None:
        self.home = os.path.join(directory, "home")
        self.path = os.path.join(directory, "mnt")
        self.output = os.path.join(directory, "mount.out")
        self.options = list(options)
        self.seeds = list(seeds)
        self.variables: dict[str, str] = {}
        """Added to the environment of the mount and its children."""
        self.process: subprocess.Popen[bytes] | None = None
        os.makedirs(self.path, exist_ok=True)
        os.makedirs(self.home, exist_ok=True)

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def init(self) -> str:
        """Create the volume; returns the path of the file that holds its phrase."""
        phrase = os.path.join(os.path.dirname(self.home), "phrase")
        seeds = [word for seed in self.seeds for word in ("--seed", seed)]
        layrfs(self.home, "init", "--phrase-file", phrase, *seeds)
        return phrase

    def mount(self) -> None:
        """Mount in the foreground of a child process; returns when the kernel has the mount and the root answers."""
        if not os.path.isdir(os.path.join(self.home, "volumes")):
            self.init()
        options = ["-o", ",".join(self.options)] if self.options else []
        command = [sys.executable, "-m", "layrfs.cli.mount", self.path, "-f", *options]
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(
                command, env=environment(self.home) | self.variables, cwd="/",
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            wait_for(self._mounted_or_over, lambda: f"mounted at {self.path}\n{tail(self.output)}", START_SECONDS)
            os.stat(self.path)
        except BaseException:
            self.close()
            raise

    def _mounted_or_over(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise Failed(f"the mount command ended with {self.process.returncode}:\n{tail(self.output)}")
        return is_mounted(self.path)

    def umount(self, *, wait: bool = True) -> None:
        """`layrfs umount`, and the end of every process the mount had started."""
        layrfs(self.home, "umount", self.path, "--wait" if wait else "--no-wait")
        self.wait_until_over()

    def wait_until_over(self) -> None:
        """Until the mount process has ended by itself and nothing of it is left."""
        assert self.process is not None
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"the mount process is still there\n{tail(self.output)}") from None
        if status:
            raise Failed(f"the mount process ended with {status}\n{tail(self.output)}")
        wait_for(lambda: not processes_of(self.home), lambda: f"every process ended: {processes_of(self.home)}")
        if is_mounted(self.path):
            raise Failed("the mount process is gone but its mount is not")

    def crash(self) -> None:
        """`kill -9` of the mount, then its mount cleaned away; returns when its children have ended by themselves."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._unmount_lazily()
        wait_for(
            lambda: not processes_of(self.home), lambda: f"children ended after kill -9: {processes_of(self.home)}"
        )

    def remount(self, *, emptied: bool = False) -> None:
        """Unmount and mount again, with an emptied cache when asked for: nothing read before is in any memory."""
        self.umount()
        if emptied:
            self.drop_cache()
        self.mount()

    def sync(self, seconds: float = COMMAND_SECONDS) -> None:
        """`layrfs sync`: returns when everything is on the hosts."""
        layrfs(self.home, "sync", self.path, seconds=seconds)

    def make_safe(self, *paths: str) -> None:
        """`layrfs sync` until these files have all their copies: it waits some seconds only for hosts that are slow."""

        def is_safe() -> bool:
            self.sync()
            return all(self.state(path) == "safe" for path in paths)

        wait_for(is_safe, lambda: f"all copies are on hosts: {[self.state(path) for path in paths]}")

    def drop_cache(self) -> None:
        """`layrfs cache drop`, mounted or not."""
        layrfs(self.home, "cache", "drop")

    def status(self, path: str | None = None) -> dict[str, Any]:
        """`layrfs status --json` of the volume, or of one path."""
        where = [path] if path else []
        answer: dict[str, Any] = json.loads(layrfs(self.home, "status", *where, "--json").stdout)
        return answer

    def state(self, path: str) -> str:
        """The `user.layrfs.state` attribute of a path: cached, uploading, safe, degraded or lost."""
        return os.getxattr(path, "user.layrfs.state").decode()

    def manifest(self, path: str) -> dict[str, Any]:
        """The `user.layrfs.manifest` attribute of a path, parsed."""
        answer: dict[str, Any] = json.loads(os.getxattr(path, "user.layrfs.manifest"))
        return answer

    def pids(self, word: str = "") -> list[int]:
        """Processes of this drive whose command line contains `word` ("layrfs.worker", "layrfs.app.embedded")."""
        return [pid for pid, command in processes_of(self.home).items() if word in command]

    def owner_pids(self) -> list[int]:
        """The mount process and its workers: what runs on the owner's machine when the hosts are elsewhere."""
        assert self.process is not None
        return [self.process.pid, *self.pids("layrfs.worker")]

    def piece_files(self) -> list[str]:
        """Every piece stored by the embedded hosts."""
        return piece_files(os.path.join(self.home, "embedded"))

    def close(self) -> None:
        """Leave nothing: no mount, no process. Never fails, also when the drive does not answer any more."""
        if is_mounted(self.path):
            subprocess.run(["fusermount3", "-u", self.path], check=False, capture_output=True, timeout=STOP_SECONDS)
        if self.process is not None and not is_mounted(self.path):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        self._unmount_lazily()
        end(self.process)
        for pid in processes_of(self.home):
            kill(pid)

    def _unmount_lazily(self) -> None:
        if is_mounted(self.path):
            subprocess.run(["fusermount3", "-uz", self.path], check=False, capture_output=True, timeout=STOP_SECONDS)


# --- hosts as processes of their own --------------------------------------------------------------------------------


PORTS = range(10_000, 32_000)
"""Below those that the kernel gives to whoever asks for any: a host that is away for a moment finds its own again."""


def free_port() -> int:
    """A port that is free for TCP and UDP on loopback, and that nobody gets by chance."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            contextlib.suppress(OSError),
        ):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port


def piece_files(directory: str) -> list[str]:
    """Files below any `pieces` directory under `directory`."""
    found = [os.path.join(top, name) for top, _, names in os.walk(directory) for name in names]
    return sorted(path for path in found if f"{os.sep}pieces{os.sep}" in path)


class HostNetwork:
    """Several `layrfs host run` processes on loopback; the first is the seed of the others.

    `program` is what stands before `host run` (a test may put a recorder in front of the same command), `running` how
    many of the hosts are started at once.
    """

    def __init__(
        self,
        directory: str,
        count: int = 5,
        *,
        running: int | None = None,
        program: Sequence[str] = ("-m", "layrfs.cli.main"),
        address: str = "127.0.0.1",
        inside: Sequence[str] = (),
        liars: Mapping[int, str] = MappingProxyType({}),
        delegates: Collection[int] = (),
        variables: Mapping[str, str] = MappingProxyType({}),
        words: Sequence[str] = (),
    ) -> None:
        """`words` end the command of each host, `inside` are before it: it then listens at `address`.

        `liars`: the lies (`tests.hosts.liars`) of some of the hosts, by number. `delegates`: those that look after
        volumes of others. `variables` are added to the environment of all.
        """
        self.address = address
        self.liars = liars
        self.delegates = delegates
        self.words = list(words)
        self.variables = dict(variables)
        self.inside = list(inside)
        self.running = count if running is None else running
        self.homes = [os.path.join(directory, f"host{number}") for number in range(count)]
        self.ports = [free_port() for _ in range(count)]
        self.program = list(program)
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count

    def __enter__(self) -> Self:
        try:
            self.start(0)
            for number in range(1, self.running):
                self._launch(number)
            for number in range(1, self.running):
                self._await(number)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seeds(self) -> list[str]:
        """What `--seed` takes."""
        return [f"{self.address}:{self.ports[0]}", f"{self.address}:{self.ports[1]}"]

    def output(self, number: int) -> str:
        """Where a host's log is."""
        return os.path.join(self.homes[number], "host.out")

    def start(self, number: int) -> None:
        """Start one host (again) on its own port and wait until it accepts connections."""
        self._launch(number)
        self._await(number)

    def _launch(self, number: int) -> None:
        home = self.homes[number]
        os.makedirs(home, exist_ok=True)
        place = ["--dir", os.path.join(home, "data"), "--listen", f"{self.address}:{self.ports[number]}"]
        program = ["-m", "tests.hosts.liars", self.liars[number]] if number in self.liars else self.program
        command = [*self.inside, sys.executable, *program, "host", "run", "--space", "20G", *place]
        command += [*(["--delegate"] if number in self.delegates else []), *self.words]
        others = [port for port in self.ports[:2] if port != self.ports[number]] if any(self.processes) else []
        for port in others:
            command += ["--seed", f"{self.address}:{port}"]
        with open(self.output(number), "ab") as output:
            variables = environment(home) | {"RECORDING": os.path.join(home, "received")} | self.variables
            self.processes[number] = subprocess.Popen(
                command, env=variables, cwd="/",
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def _await(self, number: int) -> None:
        wait_for(
            lambda: self._accepts(number), lambda: f"host {number} listens\n{tail(self.output(number))}", START_SECONDS
        )

    def _accepts(self, number: int) -> bool:
        process = self.processes[number]
        assert process is not None
        if process.poll() is not None:
            raise Failed(f"host {number} ended with {process.returncode}:\n{tail(self.output(number))}")
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.ports[number]), 1):
            return True
        return False

    def kill(self, number: int) -> None:
        """SIGKILL one host."""
        process = self.processes[number]
        assert process is not None
        process.kill()
        process.wait()

    def replace(self, number: int) -> None:
        """SIGKILL one host and delete all it had; an empty one, with another identity and port, takes its number."""
        self.kill(number)
        shutil.rmtree(self.homes[number])
        self.ports[number] = free_port()
        self.start(number)

    def piece_files(self, number: int) -> list[str]:
        """The pieces one host has stored."""
        return piece_files(self.homes[number])

    def close(self) -> None:
        """End every host."""
        for process in self.processes:
            if process is not None and process.poll() is None:
                process.terminate()
        for process, home in zip(self.processes, self.homes, strict=True):
            end(process)
            for pid in processes_of(home):
                kill(pid)


# --- programs that use the drive ------------------------------------------------------------------------------------


def run(
    *command: str | bytes,
    cwd: str | None = None,
    seconds: float = COMMAND_SECONDS,
    check: bool = True,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Run a program on the drive as a user would; what it printed. `variables` are added to the environment."""
    done = finished(command, {**os.environ, **variables}, cwd, seconds)
    if check and done.returncode:
        raise Failed(f"{command!r}: exit {done.returncode}\n{said(done)}")
    return done.stdout


def differences(source: str, target: str, what: str = "-aHAX") -> str:
    """What `rsync -c` would still have to do to make `target` equal to `source`: nothing, when all is well."""
    return run("rsync", "-c", "--dry-run", what, "--delete", "--itemize-changes", f"{source}/", f"{target}/")
