"""The log: readable lines, private files, nothing in them that could steer a terminal."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger("layrfs")
    before = root.handlers[:], root.level, root.propagate
    yield
    for handler in set(root.handlers) - set(before[0]):
        handler.close()
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mount.log"


def _fail() -> None:
    raise ValueError("odd\x1b")


def test_a_line_for_a_person(path: Path) -> None:
    logs.configure(str(path), verbose=False)
    logging.getLogger("layrfs.network.links").warning("host %s is silent", "1a2b")
    logging.getLogger("layrfs.network").debug("chatter")
    (line,) = path.read_text().splitlines()
    assert line[4] == line[7] == "-"
    assert line[19:] == " warning network.links: host 1a2b is silent"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_verbose_adds_debug(path: Path) -> None:
    logs.configure(str(path), verbose=True)
    logging.getLogger("layrfs.vfs").debug("chatter")
    assert path.read_text().endswith(" debug   vfs: chatter\n")


def test_names_cannot_steer_a_terminal_or_forge_lines(path: Path) -> None:
    logs.configure(str(path), verbose=False)
    logging.getLogger("layrfs.vfs").info("wrote %s", "a\x1b[2Jb\n2026 error\u202e\udcff")
    (line,) = path.read_text().splitlines()
    assert line.endswith(r"wrote a\x1b[2Jb\n2026 error\u202e\udcff")


def test_an_exception_is_one_line_unless_it_is_an_error(path: Path) -> None:
    logs.configure(str(path), verbose=False)
    log = logging.getLogger("layrfs.vfs")
    try:
        _fail()
    except ValueError:
        log.warning("went on", exc_info=True)
        log.exception("gave up")
    lines = path.read_text().splitlines()
    assert lines[0].endswith(r"went on (ValueError: odd\x1b)")
    assert lines[1].endswith("gave up")
    assert lines[2].strip() == "Traceback (most recent call last):"
    assert lines[-1].endswith(r"ValueError: odd\x1b")


def test_configure_again_replaces(path: Path, tmp_path: Path) -> None:
    logs.configure(str(path), verbose=False)
    second = tmp_path / "second.log"
    logs.configure(str(second), verbose=False)
    logging.getLogger("layrfs").info("hello")
    assert path.read_text() == ""
    assert second.read_text().endswith("hello\n")


def test_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(None, verbose=False)
    logging.getLogger("layrfs").error("hello")
    assert capsys.readouterr().err.endswith("layrfs: hello\n")


def test_rotated_files_stay_private(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MAX_BYTES", 100)
    logs.configure(str(path), verbose=False)
    for number in range(10):
        logging.getLogger("layrfs").info("line %d of many", number)
    found = sorted(path.parent.iterdir())
    assert [entry.name for entry in found] == ["mount.log", "mount.log.1", "mount.log.2"]
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in found} == {0o600}
