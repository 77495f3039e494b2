#!/usr/bin/env python3
"""The whole drive in one command: ``python3 mount.py MOUNTPOINT``.

On a fresh Debian or Ubuntu machine it finds what is missing, says what it will install, installs it (apt, and a virtual
environment of its own), and then is ``mount.layrfs`` with a volume and a network made when there are none.
``python3 mount.py --test [PYTEST ARGUMENTS]`` prepares the test tools and runs the checks and the tests.

Only the standard library is used here, and of this tree only modules that need no more. An environment is described by
a digest of what it was built from; when that is unchanged nothing is looked at, and a start costs a few milliseconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time

HERE = os.path.dirname(os.path.abspath(__file__))
OLDEST_PYTHON = (3, 11)
NEWER_PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11")
REQUIREMENT_MISSING = 13  # as in layrfs/cli/exit_codes.py, which an old Python could not import

TEST_TOOLS = {
    "attr": "setfattr",
    "acl": "setfacl",
    "git": "git",
    "iproute2": "tc",
    "rsync": "rsync",
    "sqlite3": "sqlite3",
    "vim": "vim",
}
"""What the tests drive on a mount: Debian package -> a command it brings."""

WHOLE_SUITE = ["--numprocesses=2", "--dist=loadfile"]
"""pytest's arguments when there are no others: most tests wait for a drive or a host most of the time."""


class SetUpError(Exception):
    """One sentence for the person who runs this."""


def main(arguments: list[str]) -> int:
    """Dispatch; the exit code. Does not return when the drive's own program takes over."""
    if sys.version_info < OLDEST_PYTHON:
        return _use_newer_python(arguments)
    try:
        if arguments[:1] == ["--test"]:
            return run_tests(arguments[1:])
        return mount(arguments)
    except SetUpError as error:
        sys.stderr.write(f"mount.py: {error}\n")
        return REQUIREMENT_MISSING
    except KeyboardInterrupt:
        sys.stderr.write("mount.py: interrupted; run it again to go on\n")
        return 130


def mount(arguments: list[str]) -> int:  # noqa: RET503  execve does not return
    """Find mistakes first, then set up, then hand over."""
    from layrfs.cli.outcome import run_command

    failure = run_command("mount.py", lambda: _look_before(arguments))
    if failure or {"-h", "--help"} & set(arguments):
        return failure
    python = ensure_environment(environment_directory(), test=False)
    command = [python, "-P", "-m", "layrfs.cli.mount", "--set-up", *arguments]
    environment = {**os.environ, "PYTHONPATH": _with_this_tree()}
    os.execve(python, command, environment)  # noqa: S606  this process becomes the drive's own program


def run_tests(arguments: list[str]) -> int:
    """Every check, then pytest with ``arguments``; the first exit code that is not zero."""
    python = ensure_environment(environment_directory(), test=True)
    checks = {
        "ruff check": [python, "-m", "ruff", "check", "."],
        "ruff format": [python, "-m", "ruff", "format", "--check", "."],
        "mypy": [python, "-m", "mypy", "--strict"],
        "import-linter": [os.path.join(os.path.dirname(python), "lint-imports")],
        "pytest": [python, "-m", "pytest", *(arguments or WHOLE_SUITE)],
    }
    failed = {name: code for name, command in checks.items() if (code := _check(name, command))}
    if failed:
        sys.stderr.write(f"mount.py: failed: {', '.join(failed)}\n")
    return next(iter(failed.values()), 0)


def environment_directory() -> str:
    """``.venv`` beside this file, or below the state directory when this tree is read-only."""
    if os.access(HERE, os.W_OK):
        return os.path.join(HERE, ".venv")
    from layrfs.config import Paths

    return os.path.join(Paths.from_environment().data, "venv")


def ensure_environment(directory: str, *, test: bool) -> str:
    """The environment's Python, after building what is missing. Raises SetUpError."""
    python = os.path.join(directory, "bin", "python")
    if _is_current(directory, test=test):
        return python
    os.makedirs(os.path.dirname(directory), mode=0o700, exist_ok=True)
    with open(directory + ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else may be building it right now
        if not _is_current(directory, test=test):
            install_packages(missing_packages(test=test))
            _build(directory, python, test=test)
    return python


def environment_digest(*, test: bool) -> str:
    """Of all that decides what the environment holds."""
    parts = [sys.version, sys.base_prefix, *requirements(test=test)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def requirements(*, test: bool) -> list[str]:
    """What ``pyproject.toml`` asks for."""
    import tomllib

    with open(os.path.join(HERE, "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)["project"]
    return [*project["dependencies"], *(project["optional-dependencies"]["test"] if test else [])]


def missing_packages(*, test: bool) -> list[str]:
    """Debian packages this machine lacks, for building the environment and for running the drive."""
    needed = [] if shutil.which("fusermount3") else ["fuse3"]
    if not _found_any("fuse3/fuse.h"):
        needed.append("libfuse3-dev")
    if not (shutil.which("pkg-config") or shutil.which("pkgconf")):
        needed.append("pkg-config")
    if not (shutil.which("cc") or shutil.which("gcc")):
        needed.append("gcc")
    if not _found_any("stdio.h"):
        needed.append("libc6-dev")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        needed.append(f"{version}-dev")
    if not _can_make_environments():
        needed.append(f"{version}-venv")
    if test:
        needed += [package for package, command in TEST_TOOLS.items() if shutil.which(command) is None]
    return needed


def install_packages(packages: list[str]) -> None:
    """Through apt, as root or with sudo. Raises SetUpError with the exact command when that cannot be."""
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise SetUpError(f"this machine lacks {', '.join(packages)} (Debian's names) and has no apt to install them")
    by_hand = f"sudo apt-get update && sudo apt-get install -y --no-install-recommends {shlex.join(packages)}"
    prefix = _privilege()
    if prefix is None:
        raise SetUpError(f"this machine lacks {', '.join(packages)}; install them, then run this again:\n  {by_hand}")
    _tell(f"installing with apt: {', '.join(packages)}")
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    subprocess.run([*prefix, *quiet, "update"], stdin=_question_input(prefix), check=False)
    install = [*prefix, *quiet, "install", "-y", "--no-install-recommends", *packages]
    done = subprocess.run(install, stdin=_question_input(prefix), stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SetUpError(f"apt could not install {', '.join(packages)}; by hand:\n  {by_hand}")


def _look_before(arguments: list[str]) -> int:
    """Mistakes in the command line and at the mountpoint, before anything is installed or created."""
    from layrfs.cli.mount import parse
    from layrfs.cli.mountpoint import check_mountpoint, is_stale

    request = parse(arguments, "mount.py")
    request.paths().check()
    if request.mountpoint is not None and not is_stale(os.path.realpath(request.mountpoint)):
        check_mountpoint(request.mountpoint, nonempty=request.options.nonempty)
    return 0


def _is_current(directory: str, *, test: bool) -> bool:
    """Built from what is asked for now; one with the test tools serves both."""
    with contextlib.suppress(OSError), open(_marker(directory), encoding="ascii") as file:
        built_from = file.read().split()
        wanted = {environment_digest(test=True), *([] if test else [environment_digest(test=False)])}
        return bool(wanted & set(built_from)) and os.path.exists(os.path.join(directory, "bin", "python"))
    return False


def _build(directory: str, python: str, *, test: bool) -> None:
    """A fresh environment; the marker comes last, so that one that was cut short is built again."""
    wanted = requirements(test=test)
    _tell(f"building a Python environment in {directory} ({len(wanted)} packages)")
    _run([sys.executable, "-m", "venv", "--clear", directory], "the virtual environment could not be made")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    _run([*pip, *wanted], "the Python packages could not be installed (is the network up?)")
    _add_this_tree(directory, python)
    _write(_marker(directory), environment_digest(test=test) + "\n")


def _add_this_tree(directory: str, python: str) -> None:
    """What an editable install would do: the package on the path, its commands beside the interpreter."""
    import tomllib

    libraries = sysconfig.get_path("purelib", "venv", {"base": directory, "platbase": directory})
    _write(os.path.join(libraries, "layrfs.pth"), HERE + "\n")
    with open(os.path.join(HERE, "pyproject.toml"), "rb") as file:
        commands = tomllib.load(file)["project"]["scripts"]
    for name, entry in commands.items():
        module, function = entry.split(":")
        path = os.path.join(directory, "bin", name)
        _write(path, f"#!{python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        os.chmod(path, 0o755)  # noqa: S103  a program


def _check(name: str, command: list[str]) -> int:
    started = time.monotonic()
    _tell(f"{name} ...")
    code = subprocess.run(command, cwd=HERE, check=False, stdin=subprocess.DEVNULL).returncode
    _tell(f"{name}: {'good' if code == 0 else f'exit code {code}'} after {time.monotonic() - started:.1f} s")
    return code


def _run(command: list[str], complaint: str) -> None:
    """Quietly; what it said is shown when it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout.decode("utf-8", "replace")[-4000:])
        raise SetUpError(complaint)


def _privilege() -> list[str] | None:
    """What to put before a command so that root runs it; None: no way without a person."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    asleep = subprocess.run(["sudo", "-n", "true"], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    return ["sudo"] if asleep.returncode == 0 or sys.stdin.isatty() else None


def _question_input(prefix: list[str]) -> int | None:
    """Only sudo may ask, for its password."""
    return None if prefix else subprocess.DEVNULL


def _can_make_environments() -> bool:
    """Debian ships ``venv`` without ``ensurepip``, in a package of its own."""
    try:
        import ensurepip
        import venv
    except ImportError:
        return False
    return bool(ensurepip.version() and venv.EnvBuilder)


def _found_any(header: str) -> bool:
    roots = ("/usr/include", "/usr/local/include")
    architectures = [sysconfig.get_config_var("MULTIARCH") or "", ""]
    return any(os.path.exists(os.path.join(root, part, header)) for root in roots for part in architectures)


def _marker(directory: str) -> str:
    return os.path.join(directory, "layrfs-environment")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _with_this_tree() -> str:
    return os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))


def _tell(sentence: str) -> None:
    sys.stderr.write(f"mount.py: {sentence}\n")
    sys.stderr.flush()


def _use_newer_python(arguments: list[str]) -> int:
    """This interpreter is too old for the rest; another may be there. This function must run on old Pythons."""
    for name in NEWER_PYTHONS:
        found = shutil.which(name)
        if found:
            os.execv(found, [found, os.path.abspath(__file__), *arguments])  # noqa: S606
    version = ".".join(str(part) for part in sys.version_info[:2])
    sys.stderr.write(f"mount.py: Python 3.11 or newer is needed; this is {version}: apt install python3.11\n")
    return REQUIREMENT_MISSING


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
