"""Where LayrFS keeps its state on this machine, and what a person may choose about a mount.

Owns every path below the state directory, the ``-o`` options and ``network.json``. Knows nothing of what the files
hold. Standard library only: ``mount.py`` reads this before anything is installed.

The invariant: nothing is created outside the data and configuration directories found here, both are private (0700),
and a directory written by a newer LayrFS is left untouched.
"""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import os
import pwd
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from layrfs import json_files
from layrfs.durable import make_directory, raise_unusable, write_atomically
from layrfs.errors import CorruptFile, NewerFormat, UsageError

LAYOUT_VERSION = 1
DEFAULT_VOLUME = "default"
_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MOST_ANSWERS = 16
SMALLEST_CACHE_BYTES = 64 << 20
_HIGHEST_PORT = 65535
_LONGEST_HOST_NAME = 253
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")


@dataclass(frozen=True, slots=True)
class Paths:
    """Absolute paths of everything on disk. ``data`` and ``config`` are the same directory under ``$LAYRFS_HOME``."""

    data: str
    config: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Paths:
        """``$LAYRFS_HOME``, else the XDG data and configuration directories of the user who runs this."""
        environment = os.environ if environment is None else environment
        if home := environment.get("LAYRFS_HOME"):
            return cls.under(home)
        data = _xdg_directory(environment, "XDG_DATA_HOME", ".local/share")
        return cls(data=data, config=_xdg_directory(environment, "XDG_CONFIG_HOME", ".config"))

    @classmethod
    def under(cls, home: str) -> Paths:
        """Everything below one directory."""
        home = os.path.abspath(os.path.expanduser(home))
        return cls(data=home, config=home)

    def volume_dir(self, volume: str) -> str:
        return os.path.join(self.data, "volumes", valid_volume_name(volume))

    def volume_key(self, volume: str) -> str:
        return os.path.join(self.volume_dir(volume), "volume.key")

    def node_key(self, volume: str) -> str:
        return os.path.join(self.volume_dir(volume), "node.key")

    def database(self, volume: str) -> str:
        return os.path.join(self.volume_dir(volume), "metadata.db")

    def cache_dir(self, volume: str) -> str:
        return os.path.join(self.volume_dir(volume), "cache")

    def history_dir(self, volume: str) -> str:
        return os.path.join(self.volume_dir(volume), "history")

    def snapshots_dir(self, volume: str) -> str:
        """Where past versions are while they are looked at."""
        return os.path.join(self.volume_dir(volume), "snapshots")

    def control_socket(self, volume: str) -> str:
        return os.path.join(self.volume_dir(volume), "control.sock")

    def log_file(self, volume: str) -> str:
        return os.path.join(self.volume_dir(volume), "mount.log")

    @property
    def network_file(self) -> str:
        return os.path.join(self.config, "network.json")

    @property
    def ledger_files(self) -> tuple[str, str]:
        """Where the ledger is named: by a person, and by the embedded network, which has one of its own."""
        return os.path.join(self.config, "ledger.json"), os.path.join(self.embedded_dir, "ledger", "ledger.json")

    def intents_file(self, volume: str) -> str:
        """Payments that `layrfs wallet send` has begun."""
        return os.path.join(self.volume_dir(volume), "payments.json")

    @property
    def embedded_dir(self) -> str:
        return os.path.join(self.data, "embedded")

    def volumes(self) -> list[str]:
        """Names of the volumes whose key is on this machine, sorted."""
        directory = os.path.join(self.data, "volumes")
        names = os.listdir(directory) if os.path.isdir(directory) else []
        return sorted(each for each in names if _VOLUME_NAME.fullmatch(each) and os.path.exists(self.volume_key(each)))

    def check(self) -> None:
        """Raise when the state cannot be used by this version; touches nothing."""
        for directory in {self.data, self.config}:
            _check_layout(os.path.join(directory, "layout"))

    def prepare(self, volume: str | None = None) -> None:
        """Create what is missing, private to the user. Raises LocalError with one sentence, or NewerFormat."""
        self.check()
        for directory in {self.data, self.config}:
            _make_private(directory)
            marker = os.path.join(directory, "layout")
            if not os.path.exists(marker):
                write_atomically(marker, f"{LAYOUT_VERSION}\n".encode())
            elif not os.access(directory, os.W_OK):
                raise_unusable(directory, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        _make_private(os.path.join(self.data, "volumes"))
        if volume is not None:
            _make_private(self.volume_dir(volume))
            _make_private(self.cache_dir(volume))


def valid_volume_name(name: str) -> str:
    """``name`` itself, or UsageError: it becomes a directory's name and the device in the mount table."""
    if not _VOLUME_NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no volume name: letters, digits, dots, dashes and underscores, at most 64")
    return name


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Which network this machine's volumes live on.

    ``network_id`` is 32 bytes in hex, or None until a seed has told it. ``embedded``: the five hosts on loopback.
    """

    network_id: str | None
    seeds: tuple[str, ...]
    embedded: bool

    VERSION: ClassVar[int] = 1

    @classmethod
    def load(cls, path: str) -> NetworkConfig | None:
        """What ``network.json`` says, None when there is none. Raises CorruptFile or NewerFormat."""
        found = json_files.load(path, "a network", cls.VERSION)
        if found is None:
            return None
        network_id, seeds, embedded = found.get("network_id"), found.get("seeds", []), found.get("embedded", False)
        known_id = network_id is None or (isinstance(network_id, str) and re.fullmatch(r"[0-9a-f]{64}", network_id))
        known_seeds = isinstance(seeds, list) and all(isinstance(seed, str) for seed in seeds)
        if not known_id or not known_seeds or not isinstance(embedded, bool):
            raise CorruptFile(f"{path} does not describe a network")
        return cls(network_id, tuple(seeds), embedded)

    def save(self, path: str) -> None:
        """Atomically and durably."""
        json_files.save(path, self.VERSION, dataclasses.asdict(self))

    def addresses(self) -> list[tuple[str, int]]:
        """The seeds as (host, port)."""
        return [parse_address(seed) for seed in self.seeds]


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What ``-o`` says. ``kernel`` holds the words handed to the kernel unchanged (``nosuid``, ``noatime``...)."""

    read_only: bool = False
    take_over: bool = False
    """Become the writer also when another machine is."""
    allow_other: bool = False
    writeback_cache: bool = True
    nonempty: bool = False
    cache_bytes: int | None = None
    """None: 10 % of the free disk, at most 20 GiB."""
    upload_after_seconds: float = 2.0
    """How long a closed file lies still before it is uploaded."""
    patch_after_seconds: float = 72 * 3600.0
    """How long a host may be silent before what it has is made anew elsewhere; longer than 72 hours is not waited."""
    workers: int = 2
    answers: int = 4
    """So many answers are made of each piece, for audits that cost a hundred bytes; 0: none."""
    instalments: int = 4
    """In so many parts a host that is paid gets its money: the first for the upload, the others for audits."""
    contract_period_seconds: int = 30 * 86400
    """For so long a contract with such a host is."""
    host_price: str | None = None
    """XLM that the hosts of the embedded network ask for a TiB and 30 days, from now on; None: as last time."""
    fsync_network: bool = False
    """``fsync`` waits until hosts have the bytes and the root record, not only until this disk has them."""
    listen: tuple[str, int] = ("0.0.0.0", 0)  # noqa: S104  a peer-to-peer node must be reachable from other machines
    kernel: tuple[str, ...] = ()

    @property
    def contract_window_seconds(self) -> int:
        """The part of a contract in which one instalment can be claimed."""
        return max(1, self.contract_period_seconds // self.instalments)

    @classmethod
    def parse(cls, text: str) -> MountOptions:
        """Options as after ``-o``, comma-separated. UsageError names the first one that makes no sense."""
        chosen: dict[str, object] = {}
        kernel: list[str] = []
        for word in filter(None, (part.strip() for part in text.split(","))):
            _take_option(word, chosen, kernel)
        return dataclasses.replace(cls(kernel=tuple(kernel)), **chosen)  # type: ignore[arg-type]  # names from _take_option


_SWITCHES: dict[str, tuple[str, bool]] = {
    "ro": ("read_only", True),
    "rw": ("read_only", False),
    "take_over": ("take_over", True),
    "allow_other": ("allow_other", True),
    "writeback": ("writeback_cache", True),
    "nowriteback": ("writeback_cache", False),
    "nonempty": ("nonempty", True),
    "fsync=local": ("fsync_network", False),
    "fsync=network": ("fsync_network", True),
}
_FOR_KERNEL = re.compile(r"(no)?(suid|dev|exec)|noatime|a?sync|dirsync")
_FOR_MOUNT_COMMAND = re.compile(
    r"defaults|default_permissions|(no)?(auto|users?|owner|group|fail|diratime|iversion|mand|lazytime)|_netdev|loud|silent"
    r"|atime|(no)?(rel|strict)atime|[xX]-.*|(comment|user|uhelper|helper|context|fsname|subtype)=.*"
)
FOR_COMMAND = ("home", "passfile", "volume")
"""Options with a value that ``mount.layrfs`` itself uses, so that an fstab line can say them."""


def _take_option(word: str, chosen: dict[str, object], kernel: list[str]) -> None:
    name, equals, value = word.partition("=")
    if word in _SWITCHES:
        field, setting = _SWITCHES[word]
        chosen[field] = setting
    elif _FOR_KERNEL.fullmatch(word):
        kernel.append(word)
    elif equals and name in _WITH_VALUE:
        field, parse = _WITH_VALUE[name]
        chosen[field] = parse(value)
    elif not _FOR_MOUNT_COMMAND.fullmatch(word) and not (equals and name in FOR_COMMAND):
        raise UsageError(f"unknown mount option {word!r}; mount.layrfs --help lists them")


def option_value(text: str, name: str) -> str | None:
    """The last ``name=value`` among comma-separated options."""
    values = [word.partition("=")[2] for word in text.split(",") if word.startswith(f"{name}=")]
    return values[-1] if values else None


def parse_size(text: str) -> int:
    """``20G``, ``512M``, ``1.5T`` or plain bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is no size; write it like 500M or 20G")
    return int(float(match[1]) * _SIZE_UNITS[match[2].upper()])


def parse_duration(text: str) -> int:
    """``30d``, ``12h``, ``90s``: whole seconds, at least one. UsageError."""
    match = re.fullmatch(r"([1-9]\d{0,8})([smhdw])", text.strip(), re.ASCII)
    if match is None:
        raise UsageError(f"{text!r} is no time; write it like 12h or 30d")
    return int(match[1]) * _DURATION_UNITS[match[2]]


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPV6]:PORT`` -> (host, port): literals in their one spelling, port 0 for any. UsageError."""
    text = text.strip()
    host, port = _split_address(text)
    if not (port.isascii() and port.isdigit()) or int(port[:6]) > _HIGHEST_PORT:
        raise UsageError(f"{port!r} in {text!r} is not a port: a number up to {_HIGHEST_PORT}")
    return _checked_host(host, text), int(port)


def _split_address(text: str) -> tuple[str, str]:
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    if not colon or not host:
        raise UsageError(f"{text!r} is no address; write it like 192.0.2.7:4747 or [2001:db8::7]:4747")
    if ":" in host or "[" in text:
        raise UsageError(f"{text!r} is no address: an IPv6 address is written [ADDRESS]:PORT")
    return host, port


def _checked_host(host: str, text: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        looks_numeric = not host.strip("0123456789.")
        if len(host) > _LONGEST_HOST_NAME or looks_numeric or not _HOST_NAME.fullmatch(host):
            raise UsageError(f"{host!r} in {text!r} is neither a host name nor an IP address") from None
        return host
    return str(getattr(address, "ipv4_mapped", None) or address)


def _parse_cache_size(text: str) -> int:
    if (size := parse_size(text)) >= SMALLEST_CACHE_BYTES:
        return size
    raise UsageError(f"cache_size={text} is too small: at least {SMALLEST_CACHE_BYTES >> 20}M are needed")


def _parse_seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise UsageError(f"{text!r} is no number of seconds")
    return float(text)


def _count(name: str, numbers: range) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if re.fullmatch(r"0|[1-9]\d{0,8}", text, re.ASCII) and int(text) in numbers:
            return int(text)
        raise UsageError(f"{name}={text} makes no sense: {numbers[0]} to {numbers[-1]}")

    return parse


def _parse_price(text: str) -> str:
    if re.fullmatch(r"\d{1,9}(\.\d{1,7})?", text, re.ASCII):
        return text
    raise UsageError(f"host_price={text} makes no sense: XLM for a TiB and 30 days, like 2 or 0.25")


_WITH_VALUE = {
    "instalments": ("instalments", _count("instalments", range(2, 65))),
    "contract_period": ("contract_period_seconds", _count("contract_period", range(1, 10**9))),
    "answers": ("answers", _count("answers", range(MOST_ANSWERS + 1))),
    "host_price": ("host_price", _parse_price),
    "cache_size": ("cache_bytes", _parse_cache_size),
    "upload_after": ("upload_after_seconds", _parse_seconds),
    "patch_after": ("patch_after_seconds", _parse_seconds),
    "workers": ("workers", _count("workers", range(1, 100))),
    "listen": ("listen", parse_address),
}


def _xdg_directory(environment: Mapping[str, str], variable: str, fallback: str) -> str:
    base = environment.get(variable, "")
    if not os.path.isabs(base):  # the XDG specification: relative paths are ignored
        base = os.path.join(environment.get("HOME") or _home_of_user(), fallback)
    return os.path.join(base, "layrfs")


def _home_of_user() -> str:
    """Without ``$HOME`` (mount units of systemd have none)."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise UsageError("this user has no home directory; set LAYRFS_HOME or -o home=DIR") from None


def _check_layout(marker: str) -> None:
    try:
        with open(marker, encoding="ascii") as file:
            version = int(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return
    except ValueError as error:
        raise CorruptFile(f"{marker} should hold one number; is this directory LayrFS's?") from error
    except OSError as error:
        raise_unusable(os.path.dirname(marker), error)
    if version > LAYOUT_VERSION:
        raise NewerFormat(
            f"{os.path.dirname(marker)} was written by a newer LayrFS; update this one, nothing was touched"
        )


def _make_private(directory: str) -> None:
    try:
        make_directory(directory)
    except OSError as error:
        raise_unusable(directory, error)


def is_private(path: str) -> bool:
    """Whether only the owner can read the file."""
    return not stat.S_IMODE(os.stat(path).st_mode) & 0o077
