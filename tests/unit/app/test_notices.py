"""What is said on the desktop and how often; the desktop is a program that writes down what it is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from layrfs.app.notices import PROGRAM, QUIET_SECONDS, Notices, desktop
from layrfs.errors import CorruptFile


class Danger:
    """A sentence that comes and goes, and who hears it when."""

    def __init__(self) -> None:
        self.sentence: str | None = None
        self.heard: list[str] = []

    async def tell(self, sentence: str) -> None:
        self.heard.append(sentence)


async def test_it_is_said_once_however_long_it_lasts_and_again_when_it_is_new(autojump_clock: object) -> None:
    danger = Danger()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Notices(lambda: danger.sentence, danger.tell).run)
        await trio.sleep(60)
        assert danger.heard == []
        danger.sentence = "3 shards are at risk"
        await trio.sleep(5 * QUIET_SECONDS)
        assert danger.heard == ["3 shards are at risk"]
        danger.sentence = None
        await trio.sleep(QUIET_SECONDS / 2)
        danger.sentence = "2 shards are at risk"
        await trio.sleep(60)
        assert len(danger.heard) == 1, "the same trouble"
        danger.sentence = None
        await trio.sleep(2 * QUIET_SECONDS)
        danger.sentence = "1 shard is at risk"
        await trio.sleep(60)
        assert danger.heard[1:] == ["1 shard is at risk"]
        nursery.cancel_scope.cancel()


async def test_a_damaged_database_ends_nothing(autojump_clock: object) -> None:
    danger, damage = Danger(), [CorruptFile("The database is damaged.")]

    def sentence() -> str | None:
        if damage:
            raise damage[0]
        return "3 shards are at risk"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Notices(sentence, danger.tell).run)
        await trio.sleep(60)
        damage.clear()
        await trio.sleep(60)
        assert danger.heard == ["3 shards are at risk"]
        nursery.cancel_scope.cancel()


async def test_the_desktop_shows_the_sentence_whatever_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    program = tmp_path / PROGRAM
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >>{said}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("DISPLAY", ":0")
    tell = desktop("LayrFS: photos")
    assert tell is not None
    await tell("--help is at risk")
    assert said.read_text().splitlines()[-3:] == ["--", "LayrFS: photos", "--help is at risk"]
    program.unlink()
    await tell("and goes on without it")


def test_without_a_desktop_or_its_program_there_is_nobody_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":0")
    assert desktop("LayrFS") is None
    (tmp_path / PROGRAM).write_text("#!/bin/sh\n")
    (tmp_path / PROGRAM).chmod(0o755)
    assert desktop("LayrFS") is not None
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert desktop("LayrFS") is None
