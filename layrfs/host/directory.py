"""A host's directory on disk: who the host is, which network it serves, and the lock that keeps it to one process.

Owns `host.json`, `peers.json`, `node.key`, `wallet.key` and `lock`; the pieces beside them are
`layrfs.storage.piece_store`'s. Must not know sockets.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

import msgspec

from layrfs.crypto.identity import NodeIdentity
from layrfs.durable import make_directory, write_atomically
from layrfs.errors import CorruptFile, LocalError, NewerFormat, NotRunning, StateInUse, UsageError
from layrfs.policy.leases import DAY_SECONDS, DEFAULT_GRACE_SECONDS
from layrfs.storage.keyring import keep_identity, load_or_create_identity

SETTINGS_VERSION = 1
_READ_LIMIT_BYTES = 1 << 20


class HostSettings(msgspec.Struct, frozen=True):
    """What a host was last run with, so that `layrfs host run` alone starts it again the same."""

    network_id: str
    listen: str
    port: int
    space_bytes: int
    announce: str = ""
    grace_days: int = DEFAULT_GRACE_SECONDS // DAY_SECONDS
    version: int = SETTINGS_VERSION
    delegate: bool = False
    price: int = 0
    """Stroops for one TiB and 30 days; 0: free, and what follows means nothing."""
    horizon: tuple[str, ...] = ()
    passphrase: str = ""
    collateral_stroops: int = 0
    payout: str = ""


class HostDirectory:
    """An existing or new directory. `lock` first, before anything is written."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._lock: int | None = None

    def lock(self) -> None:
        """Create the directory if need be and claim it for this process; StateInUse, LocalError."""
        if not self.try_lock():
            raise StateInUse(f"another process runs the host in {self.path}")

    def try_lock(self) -> bool:
        """The same, but False when another process has it. The lock ends with the process, however that ends."""
        try:
            make_directory(self.path)
            descriptor = os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return False
            raise self._unusable(error) from error
        self._lock = descriptor
        return True

    def is_running(self) -> bool:
        """Whether a process has the lock."""
        try:
            with open(os.path.join(self.path, "lock"), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def unlock(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def identity(self) -> NodeIdentity:
        """The host's own, made on first use."""
        return load_or_create_identity(os.path.join(self.path, "node.key"))

    def existing_identity(self) -> NodeIdentity:
        """Raises NotRunning where there never was a host."""
        if not os.path.exists(os.path.join(self.path, "node.key")):
            raise NotRunning(f"there is no host in {self.path}")
        return self.identity()

    def wallet(self) -> NodeIdentity:
        """The account that is paid, made on first use. Raises CorruptFile, NewerFormat, LocalError."""
        return load_or_create_identity(self._wallet_file)

    def existing_wallet(self) -> NodeIdentity:
        """Raises UsageError where no host was ever paid."""
        if not self.has_wallet():
            raise UsageError(f"no host was ever paid in {self.path}: `layrfs host run --price XLM` makes a wallet")
        return self.wallet()

    def has_wallet(self) -> bool:
        """Whether it is paid, or was once."""
        return os.path.exists(self._wallet_file)

    def take_wallet(self, private: bytes) -> None:
        """Be paid on this account from the first time on. Raises AlreadyExists, LocalError."""
        keep_identity(self._wallet_file, private)

    @property
    def _wallet_file(self) -> str:
        return os.path.join(self.path, "wallet.key")

    def settings(self) -> HostSettings | None:
        """None before the first run. Raises CorruptFile, NewerFormat, LocalError."""
        name = os.path.join(self.path, "host.json")
        data = self._read(name)
        if data is None:
            return None
        try:
            found = msgspec.json.decode(data, type=_Versioned)
            if found.version > SETTINGS_VERSION:
                raise NewerFormat(f"{self.path} was written by a newer LayrFS; update this one, nothing was touched")
            return msgspec.json.decode(data, type=HostSettings)
        except msgspec.MsgspecError as error:
            raise CorruptFile(f"{name} does not describe a host: {error}") from None

    def save_settings(self, settings: HostSettings) -> None:
        """Durably."""
        data = msgspec.json.format(msgspec.json.encode(settings), indent=1)
        write_atomically(os.path.join(self.path, "host.json"), data + b"\n")

    def peers(self) -> list[str]:
        """HOST:PORT of nodes known when the host last ran: a first host finds its network again through them."""
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(self._read(os.path.join(self.path, "peers.json")) or b"[]", type=list[str])
        return []

    def save_peers(self, peers: list[str]) -> None:
        """Whole or not at all; a disk that is full now does not matter."""
        with contextlib.suppress(LocalError):
            write_atomically(os.path.join(self.path, "peers.json"), msgspec.json.encode(peers))

    def _read(self, name: str) -> bytes | None:
        try:
            with open(name, "rb") as file:
                return file.read(_READ_LIMIT_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> LocalError:
        return LocalError(f"the directory {self.path} cannot be used: {error.strerror}")


class _Versioned(msgspec.Struct):
    version: int = 0
