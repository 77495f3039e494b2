"""What a volume is, for tests that compare two of them."""

from layrfs.storage.database import Database
from layrfs.storage.schema import VOLUME_TABLES

Rows = dict[str, list[tuple[object, ...]]]


def rows_of(database: Database) -> Rows:
    """Everything a volume is."""
    return {table: sorted(database.rows(f"SELECT * FROM {table}")) for table in VOLUME_TABLES}  # noqa: S608 - SQL cannot bind names
