"""Which ledger this machine's money is on: ``ledger.json``, beside ``network.json``.

Owns that file's form and the two networks everybody knows. Must not know what a ledger says. Standard library only, as
``layrfs.config``. The invariant: a ledger is always named together with the passphrase of its network, so that nothing
that was signed for one is ever worth anything on another.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar
from urllib.parse import urlsplit

from layrfs import json_files
from layrfs.errors import CorruptFile, LayrError, UsageError

PUBLIC, TEST = "public", "test"
_LONGEST_PASSPHRASE = 200


@dataclass(frozen=True, slots=True)
class LedgerConfig:
    """``horizon``: addresses of Horizon servers, asked in this order. ``passphrase``: the network's."""

    horizon: tuple[str, ...]
    passphrase: str

    VERSION: ClassVar[int] = 1

    @classmethod
    def load(cls, path: str) -> LedgerConfig | None:
        """What the file says, None when there is none. Raises CorruptFile or NewerFormat."""
        found = json_files.load(path, "a ledger", cls.VERSION)
        if found is None:
            return None
        try:
            return cls(tuple(found["horizon"]), found["passphrase"]).checked()
        except (KeyError, TypeError, AttributeError, UsageError):
            raise CorruptFile(f"{path} does not describe a ledger; `layrfs wallet ledger` writes it anew") from None

    def save(self, path: str) -> None:
        """Atomically and durably."""
        json_files.save(path, self.VERSION, {"horizon": list(self.horizon), "passphrase": self.passphrase})

    def checked(self) -> LedgerConfig:
        """Itself, or UsageError."""
        if not self.horizon:
            raise UsageError("a ledger needs the address of a Horizon server")
        for url in self.horizon:
            check_url(url)
        if not 0 < len(self.passphrase) <= _LONGEST_PASSPHRASE:
            raise UsageError("a ledger's passphrase has 1 to 200 characters")
        return self

    @property
    def name(self) -> str:
        """``public``, ``test``, or what its passphrase says."""
        return next((name for name, known in KNOWN.items() if known.passphrase == self.passphrase), self.passphrase)


KNOWN: Mapping[str, LedgerConfig] = MappingProxyType(
    {
        PUBLIC: LedgerConfig(("https://horizon.stellar.org",), "Public Global Stellar Network ; September 2015"),
        TEST: LedgerConfig(("https://horizon-testnet.stellar.org",), "Test SDF Network ; September 2015"),
    }
)


def check_url(url: str) -> None:
    """Raises UsageError. In the clear only to this machine and its own network: others could answer instead."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"{url!r} is no address of a Horizon server") from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or parts.username:
        raise UsageError(f"{url!r} is no address of a Horizon server; write it like https://horizon.example")
    if parts.scheme == "http" and not _is_near(host):
        raise UsageError(f"{url} would be asked in the clear, where anybody can answer for it; use https")


def chosen_ledger(paths: Sequence[str]) -> LedgerConfig:
    """The first of these files that is there. Raises UsageError when none is, CorruptFile, NewerFormat."""
    found = next((config for path in paths if (config := LedgerConfig.load(path)) is not None), None)
    if found is None:
        raise UsageError("no ledger has been chosen: `layrfs wallet ledger test` for trying, `… public` for real money")
    return found


def addresses_now(paths: Sequence[str], passphrase: str) -> tuple[str, ...]:
    """Where the ledger of this passphrase is, as the chosen one of these files says now; empty: it does not."""
    try:
        found = chosen_ledger(paths)
    except LayrError:
        return ()
    return found.horizon if found.passphrase == passphrase else ()


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"
