"""Where intents are kept: in a table of a database that is there anyway, or in a small file of their own.

Owns the table `local_intent` and the file's bytes. Must not know a ledger. The invariant: what `keep` returned from
survives a power cut.
"""

from __future__ import annotations

import msgspec

from layrfs.durable import write_atomically
from layrfs.errors import CorruptFile, LocalError
from layrfs.model.intents import Intent
from layrfs.storage.database import Database


class IntentTable:
    """Intents in a volume's database, or in a host's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Intent]:
        """Oldest first."""
        rows = self._database.rows(
            "SELECT hash, xdr, made_at, latest, purpose, abandoned FROM local_intent ORDER BY made_at, hash"
        )
        return [
            Intent(hash_, xdr, made_at, latest, purpose, bool(abandoned))
            for hash_, xdr, made_at, latest, purpose, abandoned in rows
        ]

    async def keep(self, intent: Intent) -> None:
        """Durable when this returns."""
        self._database.write(
            "INSERT OR REPLACE INTO local_intent(hash, xdr, made_at, latest, purpose, abandoned)"
            " VALUES(?, ?, ?, ?, ?, ?)",
            (intent.hash, intent.xdr, intent.made_at, intent.latest, intent.purpose, int(intent.is_abandoned)),
        )
        await self._database.sync()

    async def forget(self, hash_: bytes) -> None:
        """Need not be durable: what is looked for once too often is found."""
        self._database.write("DELETE FROM local_intent WHERE hash = ?", (hash_,))


class IntentFile:
    """Intents of commands, which may not touch the database of a drive that runs. Few at a time."""

    def __init__(self, path: str) -> None:
        self._path = path

    def all(self) -> list[Intent]:
        """Oldest first. Raises CorruptFile, LocalError."""
        try:
            with open(self._path, "rb") as file:
                return msgspec.json.decode(file.read(), type=list[Intent])
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LocalError(f"{self._path} cannot be read: {error.strerror}") from error
        except msgspec.DecodeError:
            raise CorruptFile(f"{self._path} does not list payments; look at `layrfs wallet history`") from None

    async def keep(self, intent: Intent) -> None:
        """Durable when this returns. Raises NoSpace, LocalError."""
        self._write([*self._others(intent.hash), intent])

    async def forget(self, hash_: bytes) -> None:
        """Durable, too."""
        self._write(self._others(hash_))

    def _others(self, hash_: bytes) -> list[Intent]:
        return [each for each in self.all() if each.hash != hash_]

    def _write(self, intents: list[Intent]) -> None:
        write_atomically(self._path, msgspec.json.encode(intents))
