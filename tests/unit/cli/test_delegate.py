"""``layrfs delegate``: what is shown, and which command lines make sense."""

from __future__ import annotations

import pytest

from layrfs.cli.delegate import page
from layrfs.cli.main import dispatch
from layrfs.config import parse_duration
from layrfs.errors import UsageError
from layrfs.model.status import DelegateList, DelegateStatus

NODE = "ab" * 20


def shown(**changed: object) -> str:
    fields = {"node": NODE, "place": "192.0.2.7:4747", "seconds": 86400, "heard": 940, "lies": 0, "problem": ""}
    return page(DelegateList((DelegateStatus(**(fields | changed)),)), 1000.0)[0]


def test_the_list_says_how_it_went() -> None:
    assert page(DelegateList(()), 0.0) == ["nobody looks after this volume while this machine is away"]
    assert shown() == "abababababab  192.0.2.7:4747  was told all 1 min ago, goes on for 1 d after that"
    assert shown(place="", heard=None).startswith("abababababab  not seen  knows nothing yet")
    assert shown(problem="it is not there").endswith("; now: it is not there")
    assert "revoke it" in shown(lies=1)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("12h", 43200), ("30d", 2592000), ("2w", 1209600), (" 5m ", 300)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "0d", "-1d", "1.5d", "d", "1y", "9999999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("say which NODE", []),
        ("say which NODE", ["--list", NODE]),
        ("say which NODE", ["--list", "--revoke"]),
        ("12h or 30d", [NODE, "--until", "soon"]),
    ],
)
def test_command_lines_that_make_no_sense(words: str, arguments: list[str]) -> None:
    with pytest.raises(UsageError, match=words):
        dispatch(["delegate", *arguments])
