"""The text of ``layrfs@.service``: a mount that systemd starts, and ends in good order before the network goes.

Pure. The instance is the mountpoint (``systemd-escape --path ~/cloud``). One template for two places:

* a *user's* unit starts at login and ends at logout. Whoever logs out is given two minutes by systemd
  (``user@.service``), so uploading stops well before that, and the rest goes out after the next login;
* the *system's* unit starts at boot as that user. It alone can be ordered against the network: ``After=`` is also the
  order of stopping, reversed.
"""

from __future__ import annotations

UNIT = "layrfs@.service"
USER_STOP_SECONDS = 90
SYSTEM_STOP_SECONDS = 300

_TEMPLATE = """\
# Written by `layrfs install-helper --systemd`.
[Unit]
Description=LayrFS at %f
{order}
[Service]
{identity}# `-f` stays in the foreground, `--clean` clears what a crash left mounted.
ExecStart="{program}" mount -f --clean "%f"
# Uploads what is missing. What does not go out in time is safe here and goes out after the next mount: then, or if this
# fails, the mount is told to end by a signal and still ends in good order.
ExecStop="{program}" umount --wait "%f"
TimeoutStopSec={stop_seconds}
KillMode=mixed
Restart=on-failure
RestartSec=5

[Install]
WantedBy={target}
"""

_ORDER = """\
Wants=network-online.target
After=network-online.target remote-fs-pre.target
"""


def user_unit(program: str) -> str:
    """For ``~/.config/systemd/user``; ``program`` is the path of ``layrfs``."""
    return _unit(program, order="", identity="", stop_seconds=USER_STOP_SECONDS, target="default.target")


def system_unit(program: str, user: str, home: str) -> str:
    """For ``/etc/systemd/system``, run as ``user`` with the state under ``home`` (a home directory)."""
    identity = f'User={user}\nEnvironment="HOME={_escaped(home)}"\n'
    return _unit(program, order=_ORDER, identity=identity, stop_seconds=SYSTEM_STOP_SECONDS, target="multi-user.target")


def _unit(program: str, *, order: str, identity: str, stop_seconds: int, target: str) -> str:
    return _TEMPLATE.format(
        program=_escaped(program), order=order, identity=identity, stop_seconds=stop_seconds, target=target
    )


def _escaped(text: str) -> str:
    """Within double quotes of a unit file."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
