"""What the owner pays at most: two rows of the table ``volume``, so that they come back with the recovery phrase.

Owns those rows. Must not know what is paid for. Invariant: a limit that was never set is none, and nothing is paid.
"""

from __future__ import annotations

import msgspec

from layrfs.storage.database import Database

_MAX_PRICE, _BUDGET = "max_price", "budget"


class Spending(msgspec.Struct, frozen=True):
    """In stroops. ``max_price``: for a TiB and 30 days, None: nobody is paid. ``budget``: for 30 days, None: any."""

    max_price: int | None = None
    budget: int | None = None


class SpendingLimits:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = Spending(self._value(_MAX_PRICE), self._value(_BUDGET))

    def get(self) -> Spending:
        """Read once, as every upload asks."""
        return self._now

    def set(self, spending: Spending) -> None:
        """From now on."""
        for name, stroops in ((_MAX_PRICE, spending.max_price), (_BUDGET, spending.budget)):
            if stroops is None:
                self._database.write("DELETE FROM volume WHERE name = ?", (name,))
            else:
                self._database.write("INSERT OR REPLACE INTO volume(name, value) VALUES(?, ?)", (name, stroops))
        self._now = spending

    def _value(self, name: str) -> int | None:
        stroops: int | None = self._database.value("SELECT value FROM volume WHERE name = ?", (name,))
        return stroops
