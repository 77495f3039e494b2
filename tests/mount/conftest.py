"""Mounts for tests of the file system itself.

``mounted`` is one mount for a whole test module, ``place`` an empty directory in it for each test. Both come twice: on
``LocalDrive`` (the real file system over hosts that are a dictionary: no network, starts at once) and on the whole
drive as a person mounts it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drive import FUSE_IS_THERE, REPOSITORY, START_SECONDS, Drive, HostNetwork, environment, run, tail, wait_for


class LocalDrive(Drive):
    """A ``tests.drive.Drive`` whose program is ``tests.mount.local_drive``."""

    def __init__(self, directory: str, *, options: tuple[str, ...] = ("allow_other",), hosts: int = 5) -> None:
        super().__init__(directory, options=options)
        self.hosts = hosts

    def mount(self) -> None:
        """Mount in the foreground of a child process; returns when the mount answers."""
        command = [sys.executable, "-m", "tests.mount.local_drive", self.home, self.path]
        command += [",".join(self.options), str(self.hosts)]
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(
                command,
                env=environment(self.home),
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            wait_for(self._mounted_or_over, f"mounted at {self.path}\n{tail(self.output)}", START_SECONDS)
            os.stat(self.path)
        except BaseException:
            self.close()
            raise

    def umount(self, *, wait: bool = True) -> None:  # noqa: ARG002
        """Unmount as any file system; there is no network to wait for."""
        run("fusermount3", "-u", self.path)
        self.wait_until_over()


KINDS = {"local": LocalDrive, "whole": Drive}


@pytest.fixture(scope="session", autouse=True)
def _kernel() -> None:
    """Nothing in this directory can be tried without the kernel's FUSE."""
    if not FUSE_IS_THERE:
        pytest.skip("needs /dev/fuse")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[HostNetwork]:
    """Five `layrfs host run`."""
    with HostNetwork(str(tmp_path / "hosts")) as hosts:
        yield hosts


@pytest.fixture(scope="module", params=["local", "whole"])
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    """One mount for the module."""
    directory = str(tmp_path_factory.mktemp("drive"))
    os.chmod(os.path.dirname(directory), 0o755)  # noqa: S103 - other users take part in some tests
    os.chmod(directory, 0o755)  # noqa: S103
    with KINDS[request.param](directory, options=("allow_other",)) as drive:
        yield drive


@pytest.fixture
def place(mounted: Drive, request: pytest.FixtureRequest) -> str:
    """An empty directory of the mount, the test's own."""
    directory = os.path.join(mounted.path, request.node.name.replace("/", "_")[:100])
    os.mkdir(directory)
    return directory
