"""``mount.py`` before its environment exists: what it finds missing, what it says, when it builds again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def setup_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mount_program", REPOSITORY / "mount.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mount_py(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it as a person would, with only the standard library in reach."""
    return subprocess.run(
        [sys.executable, "-S", "-B", str(REPOSITORY / "mount.py"), *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_help_needs_no_environment() -> None:
    done = mount_py("--help")
    assert done.returncode == 0
    assert "MOUNTPOINT" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["/does/not/exist"], 4, "does not exist"),
        (["/etc/passwd"], 4, "not a directory"),
        (["/etc"], 4, "not empty"),
        ([], 2, "required"),
        (["--bogus", "/mnt"], 2, "--bogus"),
        (["/mnt", "-o", "bogus"], 2, "bogus"),
        (["a", "b", "c"], 2, "too many"),
        (["../x", "/mnt"], 2, "no volume name"),
    ],
)
def test_mistakes_are_found_before_anything_is_installed(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    done = mount_py(*arguments, LAYRFS_HOME=str(tmp_path / "home"))
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_state_directory_from_the_future(tmp_path: Path) -> None:
    (tmp_path / "layout").write_text("99\n")
    (tmp_path / "mnt").mkdir()
    done = mount_py(str(tmp_path / "mnt"), LAYRFS_HOME=str(tmp_path))
    assert done.returncode == 8
    assert "newer LayrFS" in done.stderr


def test_nothing_is_missing_where_the_tests_run(setup_module: ModuleType) -> None:
    assert setup_module.missing_packages(test=False) == []


def test_without_programs_on_the_path_their_packages_are_named(
    setup_module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {"fuse3", "pkg-config", "gcc", "git", "rsync"} <= set(setup_module.missing_packages(test=True))


def test_without_root_or_sudo_the_exact_command_is_printed(
    setup_module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    apt_get = tmp_path / "apt-get"
    apt_get.write_text("#!/bin/sh\nexit 0\n")
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(setup_module.SetUpError, match="apt-get install -y --no-install-recommends fuse3 gcc"):
        setup_module.install_packages(["fuse3", "gcc"])


def test_apt_that_fails_is_one_sentence_and_a_command(
    setup_module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    apt_get = tmp_path / "apt-get"
    apt_get.write_text("#!/bin/sh\nexit 100\n")
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(setup_module.SetUpError, match="apt could not install fuse3"):
        setup_module.install_packages(["fuse3"])


def test_an_environment_is_current_until_what_it_was_built_from_changes(
    setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(tmp_path / "venv")
    assert not setup_module._is_current(directory, test=False)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").write_text("")
    marker = tmp_path / "venv" / "layrfs-environment"
    marker.write_text(setup_module.environment_digest(test=False))
    assert setup_module._is_current(directory, test=False)
    assert not setup_module._is_current(directory, test=True)
    marker.write_text(setup_module.environment_digest(test=True))
    assert setup_module._is_current(directory, test=False)
    other = tmp_path / "other"
    other.mkdir()
    changed = (REPOSITORY / "pyproject.toml").read_text().replace("apsw>=", "apsw>")
    (other / "pyproject.toml").write_text(changed)
    monkeypatch.setattr(setup_module, "HERE", str(other))
    assert not setup_module._is_current(directory, test=False)


def test_an_environment_cut_short_is_not_current(setup_module: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "layrfs-environment").write_text(setup_module.environment_digest(test=False))
    assert not setup_module._is_current(str(tmp_path / "venv"), test=False)


def test_the_commands_of_an_environment_run_this_tree(setup_module: ModuleType, tmp_path: Path) -> None:
    directory = str(tmp_path / "venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    setup_module._add_this_tree(directory, os.path.join(directory, "bin", "python"))
    done = subprocess.run([os.path.join(directory, "bin", "layrfs"), "--version"], capture_output=True, check=True)
    assert done.stdout.startswith(b"layrfs ")


def test_the_ci_script_runs_the_same(tmp_path: Path) -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert "mount.py --test" in script
    assert shutil.which("bash")
