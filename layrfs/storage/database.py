"""One volume's SQLite database: transactions grouped in time, durability on demand.

Owns the connection, the open transaction and the write-ahead log. Must not know any table beyond its schema.

Statements run in plain code on the one trio thread, inside a transaction that stays open for about a second, so a
statement costs microseconds and a group of them is atomic. ``commit`` hands the transaction to the operating system
(it survives ``kill -9``), ``sync`` puts the log on the disk (it survives a power cut). Checkpoints use a connection of
their own in a thread.

What a transaction changes in the volume's tables is recorded (SQLite's session extension) and kept in the same
transaction, as a row of ``local_change``: whatever happens, the log of changes says exactly what the tables say.

The invariant: a transaction is never rolled back once its writer was answered. SQLite rolls back on a full disk, so
room is kept aside for the commit (``ROOM_BYTES``) and ``has_room`` turns false long before it is needed. Should a
rollback happen anyway, or the disk not take the log, every change and every ``sync`` fails from then on: nobody is told
that something is safe when it is not, and a later flush that succeeds proves nothing; the next start writes the log
again. When a page turns out to be damaged, every statement fails from then on, reading ones as well: what else the file
says cannot be believed either (``layrfs.storage.soundness``, ``layrfs fsck``).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import apsw
import trio

from layrfs.crashpoints import reached
from layrfs.durable import sync_directory
from layrfs.errors import CorruptFile, LayrError, LocalError, NewerFormat, NoSpace
from layrfs.logs import log_failure
from layrfs.storage import soundness, write_ahead
from layrfs.storage.cache_files import failed
from layrfs.storage.schema import APPLICATION_ID, INDEXES, SCHEMA_VERSION, TABLES, VOLUME_TABLES

logger = logging.getLogger(__name__)

Value = None | int | float | str | bytes
Row = tuple[Any, ...]
"""A row's values have the types of the schema, which a type checker cannot see."""

ROOM_BYTES = 32 * 1024 * 1024
"""Set aside in a file of its own for the commits that happen when the disk is full: more than a second's worth."""

PAGE_CACHE_KIB = 24 * 1024
BUSY_MILLISECONDS = 1000
CHECKPOINT_PAGES = 4096
"""A checkpoint in the background starts when the log holds more than this (16 MiB)."""

BLOCKING_CHECKPOINT_PAGES = 65536
"""A log this long (a writer who never pauses) is emptied between two transactions, while everybody waits."""


class Database:
    """The volume's tables. Everything but ``sync`` and ``run`` is plain code for the trio thread alone."""

    def __init__(self, path: str, *, commit_seconds: float = 1.0, remedy: str = "unmount and mount again") -> None:
        """Open or create the database at ``path``. ``remedy``: what a person does when nothing can be written any more.

        Raises ``CorruptFile``, ``NewerFormat`` or ``LocalError``.
        """
        self._path = path
        self._commit_seconds = commit_seconds
        self._remedy = remedy
        write_ahead.write_again(path + "-wal")
        self._is_checked = soundness.check_before_use(path)
        soundness.break_seal(path)
        self._connection = _open(path)
        self._cursor = self._connection.cursor()
        self._log = os.open(path + "-wal", os.O_RDWR | os.O_CLOEXEC)
        self._log_pages = 0
        self._connection.set_wal_hook(self._log_grew)
        self._session = self._new_session()
        self._flushes: list[Callable[[], None]] = []
        self._waits: list[Callable[[], Awaitable[None]]] = []
        self._writing = False
        self._failure: str | None = None
        self._damage: str | None = None
        self._syncing = trio.Lock()
        self._commits = 0
        self._synced_commits = 0
        self.has_room = True
        """False when the disk is so full that nothing new should be begun; looked at on every commit."""
        self._keep_room()

    @property
    def path(self) -> str:
        """Where it is."""
        return self._path

    @property
    def problem(self) -> str | None:
        """Why nothing is written any more, in a sentence."""
        return self._failure

    @property
    def is_damaged(self) -> bool:
        """Whether nothing can be read any more, either."""
        return self._damage is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, sql: str, bindings: Sequence[Value] = ()) -> None:
        """Run one statement that changes rows, in the open transaction."""
        if not self._writing:
            self._begin()
        try:
            self._cursor.execute(sql, bindings)
        except apsw.Error as error:
            raise self._failed(error) from error

    def write_many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Run one statement once for each row, in the open transaction."""
        if not self._writing:
            self._begin()
        try:
            self._cursor.executemany(sql, rows)
        except apsw.Error as error:
            raise self._failed(error) from error

    def insert(self, sql: str, bindings: Sequence[Value] = ()) -> int:
        """Like ``write``; the number of the row just inserted."""
        self.write(sql, bindings)
        return self._connection.last_insert_rowid()

    def row(self, sql: str, bindings: Sequence[Value] = ()) -> Row | None:
        """The first row, or None."""
        self._check_undamaged()
        try:
            return self._cursor.execute(sql, bindings).fetchone()
        except apsw.Error as error:
            raise self._failed(error) from error

    def rows(self, sql: str, bindings: Sequence[Value] = ()) -> Iterator[Row]:
        """Every row, as they are asked for. Do not await while iterating: others would write meanwhile."""
        self._check_undamaged()
        try:
            yield from self._connection.execute(sql, bindings)
        except apsw.Error as error:
            raise self._failed(error) from error

    def value(self, sql: str, bindings: Sequence[Value] = ()) -> Any:
        """The first column of the first row, or None."""
        row = self.row(sql, bindings)
        return None if row is None else row[0]

    def apply(self, changes: bytes) -> None:
        """Make recorded changes of the volume's tables in the open transaction, all or none, and do not record them.

        They are those of another machine, so nothing of this one's may be unrecorded. Raises ``CorruptFile`` when they
        do not fit on what is here, exactly.
        """
        if not self._session.is_empty:
            self.commit()
        if not self._writing:
            self._begin()
        self._session.enabled = False
        try:
            apsw.Changeset.apply(changes, self._connection, conflict=no_conflict)
        except (apsw.AbortError, apsw.CorruptError) as error:
            raise CorruptFile(f"The changes do not fit on {self._path}.") from error
        except apsw.Error as error:
            raise self._failed(error) from error
        finally:
            self._session.enabled = True

    def before_commit(self, flush: Callable[[], None]) -> None:
        """Have ``flush`` called before every commit: whoever keeps rows in memory writes the changed ones there."""
        self._flushes.append(flush)

    def before_sync(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Have ``wait`` awaited by every ``sync``: what must be on the disk before the rows that refer to it are."""
        self._waits.append(wait)

    async def wait_before_sync(self) -> None:
        """All that ``sync`` waits for first."""
        for wait in self._waits:
            await wait()

    def commit(self) -> None:
        """Give everything written so far to the operating system; costs no disk flush."""
        for flush in self._flushes:
            flush()
        self._check_sound()
        if not self._writing:
            if not self.has_room:
                self._keep_room()
            return
        self._keep_room()
        try:
            if not self._session.is_empty and (changes := self._session.changeset()):
                self._cursor.execute("INSERT INTO local_change(changes) VALUES(?)", (changes,))
            self._session.close()
            self._cursor.execute("COMMIT")
            self._session = self._new_session()
        except apsw.Error as error:
            raise self._failed(error) from error
        self._writing = False
        self._commits += 1

    async def sync(self) -> None:
        """Commit, and return when it is on the disk. Callers that arrive together share one flush."""
        await self.wait_before_sync()
        self.commit()
        reached("log committed")
        needed = self._commits
        async with self._syncing:
            if self._synced_commits >= needed:
                return
            self._check_sound()
            covered = self._commits
            try:
                await trio.to_thread.run_sync(os.fdatasync, self._log)
            except OSError as error:
                raise self._unsure(error) from error
            self._synced_commits = covered
            reached("log synced")

    def flush(self) -> None:
        """What ``sync`` does, at the end, when nobody else is kept waiting."""
        self.commit()
        try:
            os.fdatasync(self._log)
        except OSError as error:
            raise self._unsure(error) from error
        self._synced_commits = self._commits

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit about every second and keep the log short, until cancelled."""
        task_status.started()
        async with trio.open_nursery() as nursery:
            if not self._is_checked:
                nursery.start_soon(self._check_rest)
            while True:
                await trio.sleep(self._commit_seconds)
                try:
                    self.commit()
                    await self.checkpoint()
                except LayrError as error:
                    log_failure(logger, "metadata could not be written", error)

    async def _check_rest(self) -> None:
        """Of a large database that was not closed in order, while it is in use."""
        found = await trio.to_thread.run_sync(soundness.integrity_check, self._path, abandon_on_cancel=True)
        if found:
            self._note_damage(found[0])

    async def checkpoint(self) -> None:
        """Move the log into the database file when it has grown long."""
        if self._log_pages < CHECKPOINT_PAGES:
            return
        try:
            await trio.to_thread.run_sync(write_ahead.checkpoint, self._path)
            if self._log_pages >= BLOCKING_CHECKPOINT_PAGES:
                self.commit()
                with contextlib.suppress(apsw.BusyError):
                    self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                    self._log_pages = 0
        except apsw.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Commit, move everything into the database file, close and seal it. Closing twice is harmless."""
        if self._log < 0:
            return
        try:
            if self._failure is None:
                self.commit()
        finally:
            os.close(self._log)
            self._log = -1
            self._session.close()
            self._connection.close()
        if self._failure is None:
            soundness.write_seal(self._path)

    def _log_grew(self, _connection: apsw.Connection, _schema: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _new_session(self) -> apsw.Session:
        session = apsw.Session(self._connection, "main")
        for table in VOLUME_TABLES:
            session.attach(table)
        return session

    def _begin(self) -> None:
        self._check_sound()
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            raise self._failed(error) from error
        self._writing = True

    def _check_sound(self) -> None:
        self._check_undamaged()
        if self._failure is not None:
            raise LocalError(self._failure)

    def _check_undamaged(self) -> None:
        if self._damage is not None:
            raise CorruptFile(self._damage)

    def _note_damage(self, reason: str) -> CorruptFile:
        """Nothing is believed or promised from now on."""
        error = soundness.noted(self._path, reason)
        self._damage = self._failure = str(error)
        logger.critical(self._damage)
        return error

    def _failed(self, error: apsw.Error) -> LayrError:
        if isinstance(error, apsw.CorruptError | apsw.NotADBError):
            return self._note_damage(str(error))
        if self._writing and (not self._connection.in_transaction or isinstance(error, apsw.FullError)):
            self._writing = False
            self._failure = f"The metadata of the last second could not be written ({error}); {self._remedy}."
            logger.critical(self._failure)
        if isinstance(error, apsw.FullError):
            return NoSpace(f"The disk that holds {self._path} is full.")
        return LocalError(f"The database {self._path} failed: {error}")

    def _unsure(self, error: OSError) -> LayrError:
        """After a flush that failed the kernel calls pages clean that never reached the disk, and says so only once."""
        self._failure = f"The metadata could not be put on the disk ({error.strerror}); {self._remedy}."
        logger.critical(self._failure)
        return failed(error, self._path)

    def _keep_room(self) -> None:
        """Give the set-aside room back to the disk when it is nearly full, take it again when it is not."""
        directory = os.statvfs(os.path.dirname(self._path) or ".")
        free_bytes = directory.f_bavail * directory.f_frsize
        aside = self._path + "-room"
        if free_bytes < ROOM_BYTES:
            self.has_room = False
            with contextlib.suppress(OSError):
                os.unlink(aside)
        elif free_bytes > 3 * ROOM_BYTES:
            self.has_room = True
            if not os.path.exists(aside):
                write_ahead.set_aside(aside, ROOM_BYTES)


def no_conflict(_reason: int, _change: apsw.TableChange) -> int:
    """Changes are applied to exactly what they were recorded on, so a conflict means that something is missing."""
    return apsw.SQLITE_CHANGESET_ABORT


def _open(path: str) -> apsw.Connection:
    try:
        connection = apsw.Connection(path)
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "normal")
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("cache_size", -PAGE_CACHE_KIB)
        connection.pragma("temp_store", "memory")
        connection.pragma("cell_size_check", "on")
        _make_tables(connection, path)
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise soundness.noted(path, str(error)) from error
    except apsw.Error as error:
        raise LocalError(f"The database {path} cannot be opened: {error}") from error
    sync_directory(os.path.dirname(path))  # the names of the database and its log must survive a power cut as well
    return connection


def _make_tables(connection: apsw.Connection, path: str) -> None:
    version, application = connection.pragma("user_version"), connection.pragma("application_id")
    if version > SCHEMA_VERSION and application == APPLICATION_ID:
        raise NewerFormat(f"{path} was written by a newer LayrFS (format {version}, this one knows {SCHEMA_VERSION}).")
    if version == SCHEMA_VERSION and application == APPLICATION_ID:
        return
    if application == APPLICATION_ID:
        raise CorruptFile(f"{path} was written by a LayrFS from before the first release (format {version}).")
    if application != 0 or connection.execute("SELECT count(*) FROM sqlite_schema").get != 0:
        raise CorruptFile(f"{path} is a database, but not one of LayrFS's; {soundness.REMEDY}.")
    with connection:
        connection.execute(TABLES + INDEXES)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", SCHEMA_VERSION)
