"""`layrfs install-helper --systemd`: what it writes, and that systemd understands it."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from layrfs.cli.systemd_unit import UNIT, system_unit, user_unit
from tests.shell import Shell

ODD = '/opt/a "b" 100% $HOME\\x/layrfs'


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=["="])
    parser.optionxform = str  # type: ignore[assignment]  # names of settings keep their case
    parser.read_string(text)
    return parser


@pytest.mark.parametrize(
    ("scope", "text"), [("--user", user_unit("/bin/true")), ("--system", system_unit("/bin/true", "root", "/root"))]
)
def test_systemd_has_nothing_to_say_against_it(scope: str, text: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    (tmp_path / UNIT).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", scope, str(tmp_path / "layrfs@home-al-my\\x20cloud.service")],
        capture_output=True, text=True, check=False, env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "layrfs@" in line] == []


def test_it_is_unmounted_with_everything_uploaded_before_the_network_goes() -> None:
    unit = parsed(system_unit("/opt/layrfs", "al", "/home/al"))
    assert "network-online.target" in unit["Unit"]["After"].split()
    assert unit["Service"]["User"] == "al"
    assert unit["Service"]["Environment"] == '"HOME=/home/al"'
    for text in (user_unit("/opt/layrfs"), system_unit("/opt/layrfs", "al", "/home/al")):
        service = parsed(text)["Service"]
        assert service["ExecStart"] == '"/opt/layrfs" mount -f --clean "%f"'
        assert service["ExecStop"] == '"/opt/layrfs" umount --wait "%f"'
        assert service["KillMode"] == "mixed", "workers are needed to the end"
    assert int(parsed(user_unit("/l"))["Service"]["TimeoutStopSec"]) < 120, "of user@.service, then all are killed"


def test_odd_names_are_escaped() -> None:
    assert '"/opt/a \\"b\\" 100%% $$HOME\\\\x/layrfs" mount' in user_unit(ODD)


def test_it_is_written_replaced_and_removed_but_nobody_elses_file(tmp_path: Path) -> None:
    shell, units = Shell(tmp_path / "home"), tmp_path / "units"
    said = shell.succeeds("install-helper", "--systemd", "--units", str(units))
    assert str(units / UNIT) in said
    assert "enable --now layrfs@" in said
    assert "ExecStop=" in (units / UNIT).read_text()
    shell.succeeds("install-helper", "--systemd", "--units", str(units))
    shell.succeeds("install-helper", "--systemd", "--units", str(units), "--remove")
    assert not (units / UNIT).exists()
    (units / UNIT).write_text("[Unit]\nDescription=mine\n")
    shell.fails(1, "was not put there", "install-helper", "--systemd", "--units", str(units))
