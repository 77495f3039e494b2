"""A volume's rows against each other: what is wrong with them, and how it is put right.

Owns the order: rules (``layrfs.storage.rules``) and what takes more than a statement. Must not know cache files or
hosts. Each kind of repair is a transaction of its own, so that an interrupted one leaves fewer things wrong than there
were, never others. Rows that damage changed behind the log's back do not fit what was published: after a repair the
next version is a checkpoint (``REPAIRED``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import apsw
import msgspec

from layrfs.errors import BadMessage
from layrfs.ids import ROOT_INODE
from layrfs.model.findings import Finding
from layrfs.model.history import History
from layrfs.model.records import RECORD_LIMIT_BYTES, NodeRecord
from layrfs.model.root_record import verified_untrusted
from layrfs.model.shards import ShardRecord
from layrfs.storage.changes import REPAIRED
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.nameless import Nameless, Owner
from layrfs.storage.rules import BLOCKS, INODES, LOST, NAMES, ON_HOSTS, SUMS, Rule
from layrfs.wire.codec import decode_untrusted

RUNNING = "running"
"""The mark of a run that has not ended in order (``layrfs.vfs.recovery``)."""

_NAMED = 3
_COUNTER = next(rule for rule in SUMS if rule.name == "next inode")


class Check(NamedTuple):
    """``find`` answers with what is wrong; ``repair`` leaves none of it."""

    name: str
    text: str
    find: Callable[[], Sequence[object]]
    repair: Callable[[], None]


class RowChecks:
    """Plain code on one database; what ``repair`` writes is committed."""

    def __init__(self, database: Database, owner: Owner) -> None:
        self._database = database
        self._marks = Journal(database)
        self._lost_found = Nameless(database, owner)
        self._unclean = self._marks.mark(RUNNING) is not None

    def find(self) -> Iterator[Finding]:
        """Everything that is wrong."""
        for check in self._checks():
            found = check.find()
            if found:
                yield Finding(check.name, "problem", sentence(check.text, found), len(found), repairable=True)
        lost = self._matches(LOST)
        if lost:
            yield Finding(LOST.name, "lost", sentence(LOST.text, lost), len(lost))

    def repair(self) -> Iterator[str]:
        """Put right what is wrong, one kind after the other; a sentence for each that was."""
        for check in self._checks():
            found = check.find()
            if found:
                check.repair()
                self._marks.set_mark(REPAIRED, 1)
                self._database.commit()
                yield f"repaired: {sentence(check.text, found)}"

    def _checks(self) -> list[Check]:
        missing = Check("missing files", "files of which only the contents are left", self._missing, self._revive)
        unreachable = Check("lost names", "files that no path leads to", self._unreachable, self._attach)
        return [
            Check("changes", "recorded changes that cannot be read", self._bad_changes, self._drop_changes),
            Check("host records", "hosts whose record cannot be read", self._bad_hosts, self._clear_hosts),
            Check("versions", "retained versions that cannot be read", self._bad_versions, self._drop_versions),
            *map(self._check, (*ON_HOSTS, *BLOCKS)),
            missing,
            Check("root", "no root directory", self._rootless, self._lost_found.make_root),
            *map(self._check, (*INODES, _COUNTER, *NAMES)),
            unreachable,
            *map(self._check, SUMS),
        ]

    def _check(self, rule: Rule) -> Check:
        return Check(rule.name, rule.text, lambda: self._matches(rule), lambda: self._carry_out(rule))

    def _matches(self, rule: Rule) -> list[object]:
        return [row[0] for row in self._database.rows(rule.query)]

    def _carry_out(self, rule: Rule) -> None:
        for statement in rule.repair:
            self._database.write(statement)

    # ------------------------------------------------------- more than a statement

    def _missing(self) -> list[object]:
        return list(self._lost_found.missing(unclean=self._unclean))

    def _revive(self) -> None:
        for inode in self._lost_found.missing(unclean=self._unclean):
            self._lost_found.revive(inode)

    def _unreachable(self) -> list[object]:
        return list(self._lost_found.unreachable(unclean=self._unclean))

    def _attach(self) -> None:
        self._lost_found.attach(unclean=self._unclean)

    def _rootless(self) -> list[object]:
        has_root = self._database.value("SELECT 1 FROM inode WHERE number = ?", (ROOT_INODE,))
        is_new = self._database.value("SELECT 1 FROM inode UNION ALL SELECT 1 FROM entry LIMIT 1") is None
        return [] if has_root or is_new else [ROOT_INODE]

    def _bad_changes(self) -> list[object]:
        rows = self._database.rows("SELECT number, changes FROM local_change ORDER BY number")
        return [number for number, changes in rows if not is_changeset(changes)]

    def _drop_changes(self) -> None:
        """The tables have what they say, and the checkpoint that is due now has the tables."""
        self._database.write("DELETE FROM local_change")

    def _bad_hosts(self) -> list[int]:
        rows = self._database.rows("SELECT number, record FROM host WHERE record IS NOT NULL")
        return [number for number, record in rows if not _is_node_record(record)]

    def _clear_hosts(self) -> None:
        rows = [(number,) for number in self._bad_hosts()]
        self._database.write_many("UPDATE host SET record = NULL WHERE number = ?", rows)

    def _bad_versions(self) -> list[int]:
        segments = {
            number
            for number, shards in self._database.rows("SELECT number, shards FROM segment")
            if _is(tuple[ShardRecord, ...], shards)
        }
        rows = list(self._database.rows("SELECT number, segments FROM version"))
        return [
            number
            for number, needed in rows
            if not _is(tuple[int, ...], needed) or not segments >= set(msgspec.msgpack.decode(needed))
        ]

    def _drop_versions(self) -> None:
        self._database.write_many("DELETE FROM version WHERE number = ?", [(one,) for one in self._bad_versions()])


def marks_are_sound(marks: Journal) -> bool:
    """Whether the newest version that this machine prepared can be read: without it nothing can be published."""
    history, root = marks.mark("history"), marks.mark("root")
    if history is None and root is None:
        return True
    if not (isinstance(history, bytes) and isinstance(root, bytes)):
        return False
    try:
        History.from_bytes(history)
        verified_untrusted(root)
    except BadMessage:
        return False
    return True


def is_changeset(changes: bytes) -> bool:
    """Whether these bytes are recorded changes, from the first to the last."""
    try:
        for _change in apsw.Changeset.iter(changes):
            pass
    except apsw.Error:
        return False
    return True


def sentence(text: str, found: Sequence[object]) -> str:
    """``files that no path leads to: 3 (4, 5, 9)``."""
    names = ", ".join(str(one) for one in found[:_NAMED])
    return f"{text}: {len(found)} ({names}{', …' if len(found) > _NAMED else ''})"


def _is_node_record(record: bytes) -> bool:
    try:
        decode_untrusted(NodeRecord, record, limit=RECORD_LIMIT_BYTES)
    except BadMessage:
        return False
    return True


def _is(kind: object, data: bytes) -> bool:
    try:
        msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError):
        return False
    return True
