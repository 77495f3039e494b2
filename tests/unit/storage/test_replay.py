"""A follower's database is at every version what a database restored from scratch is, row by row."""

import random
from pathlib import Path

import pytest

from layrfs.errors import CorruptFile
from layrfs.storage.changes import ChangeLog, combined, restore, write_checkpoint
from layrfs.storage.database import Database
from layrfs.storage.replay import database_difference, difference, touched
from tests.volumes import Rows, rows_of

Segments = list[tuple[int, bytes]]
"""Number and changeset of each, in order; the first may be a checkpoint, whose bytes are its path."""


class Writer:
    """A volume that changes at random and is published, merged and checkpointed at random."""

    def __init__(self, directory: Path, dice: random.Random) -> None:
        self.directory, self.dice = directory, dice
        self.database = Database(str(directory / "writer.db"))
        self.log = ChangeLog(self.database)
        self.checkpoint: str | None = None
        self.segments: Segments = []
        self.version = 0

    def change(self) -> None:
        """A few rows of any kind, names that change places among them."""
        dice, database = self.dice, self.database
        for _ in range(dice.randrange(1, 12)):
            number, other = dice.randrange(1, 25), dice.randrange(1, 25)
            match dice.randrange(7):
                case 0:
                    database.write(
                        "INSERT OR REPLACE INTO inode VALUES(?,33188,0,0,1,?,65536,0,0,0,0,NULL)", (number, other)
                    )
                case 1:
                    database.write("DELETE FROM inode WHERE number = ?", (number,))
                case 2:
                    row = (number, b"name%d" % other, other)
                    database.write("INSERT OR REPLACE INTO entry VALUES(?, 1, ?, ?)", row)
                case 3:
                    self.swap_names()
                case 4:
                    database.write("INSERT OR REPLACE INTO block VALUES(?, 0, ?, 5)", (number, other))
                case 5:
                    database.write("INSERT OR REPLACE INTO local VALUES(?, 0, ?)", (number, other % 2))
                case _:
                    digest = b"digest%d" % other
                    database.write("INSERT OR REPLACE INTO content VALUES(?, ?, 1, 0, 5)", (number, digest))

    def swap_names(self) -> None:
        names = list(self.database.rows("SELECT cookie, name FROM entry"))
        chosen = self.dice.sample(names, self.dice.randrange(2, 5)) if len(names) >= 4 else []
        for cookie, _name in chosen:
            self.database.write("UPDATE entry SET name = ? WHERE cookie = ?", (b"\0%d" % cookie, cookie))
        for (cookie, _name), (_cookie, name) in zip(chosen, chosen[1:] + chosen[:1], strict=True):
            self.database.write("UPDATE entry SET name = ? WHERE cookie = ?", (name, cookie))

    def publish(self) -> None:
        self.database.commit()
        last, changes = self.log.pending()
        if not changes:
            return
        self.version += 1
        if self.dice.random() < 0.1:
            self.checkpoint = str(self.directory / f"checkpoint{self.version}")
            last = write_checkpoint(self.database.path, self.checkpoint).last
            self.segments = []
        else:
            kept = self.dice.randrange(len(self.segments) + 1)
            merged = [one for _number, one in self.segments[kept:]]
            self.segments = [*self.segments[:kept], (self.version, combined([*merged, changes]))]
        self.log.forget(last)

    def restored(self) -> Rows:
        path = str(self.directory / "restored.db")
        restore(path, self.checkpoint, [changes for _number, changes in self.segments])
        with Database(path) as database:
            return rows_of(database)


@pytest.mark.parametrize("seed", range(20))
def test_a_follower_has_what_a_restored_volume_has(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    writer = Writer(tmp_path, dice)
    checkpoint: str | None = None
    segments: Segments = []
    with writer.database, Database(str(tmp_path / "follower.db")) as follower:
        for _ in range(40):
            writer.change()
            writer.publish()
            if dice.random() < 0.4:
                continue  # it does not see every version
            before = rows_of(follower)
            if checkpoint == writer.checkpoint and dice.random() < 0.9:
                new = writer.segments
                same = next((at for at, (a, b) in enumerate(zip(segments, new, strict=False)) if a[0] != b[0]), None)
                same = min(len(segments), len(new)) if same is None else same
                changes = difference([one for _, one in segments[same:]], [one for _, one in new[same:]])
            else:
                restored = str(tmp_path / "rebuilt.db")
                restore(restored, writer.checkpoint, [one for _, one in writer.segments])
                changes = database_difference(follower.path, restored)
            follower.apply(changes)
            follower.commit()
            checkpoint, segments = writer.checkpoint, list(writer.segments)
            after = rows_of(follower)
            assert after == writer.restored()
            assert not ChangeLog(follower).has_pending()
            check_touched(before, after, changes)


def check_touched(before: Rows, after: Rows, changes: bytes) -> None:
    """What is remembered of rows that differ is found, and rows that do not differ are not in the change at all."""
    found = touched(changes)
    differing = {table: set(before[table]) ^ set(after[table]) for table in before}
    assert {row[0] for row in set(before["inode"]) - set(after["inode"])} <= found.inodes | found.removed
    assert {row[0] for row in differing["inode"]} | {row[0] for row in differing["block"] | differing["unsent"]} == (
        found.inodes | found.removed
    )
    assert {row[:2] for row in differing["block"] | differing["unsent"]} == found.blocks
    digests = [{row[0]: row[1] for row in rows["content"]} for rows in (before, after)]
    moved = {number for number in digests[0].keys() & digests[1].keys() if digests[0][number] != digests[1][number]}
    assert moved == found.contents


def test_changes_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    cuts = []
    with Database(str(tmp_path / "writer.db")) as database:
        log = ChangeLog(database)
        for value in (1, 2):
            database.write("INSERT OR REPLACE INTO volume VALUES('x', ?)", (value,))
            database.write("INSERT INTO volume VALUES(?, 1)", (f"y{value}",))
            database.commit()
            last, changes = log.pending()
            log.forget(last)
            cuts.append(changes)
    with Database(str(tmp_path / "follower.db")) as follower:
        follower.write("INSERT OR REPLACE INTO local VALUES(7, 0, 0)")
        with pytest.raises(CorruptFile):
            follower.apply(cuts[1])
        assert list(follower.rows("SELECT * FROM volume")) == []
        assert list(follower.rows("SELECT inode FROM local")) == [(7,)], "what else is in the transaction stays"
        for changes in cuts:
            follower.apply(changes)
        follower.write("INSERT INTO volume VALUES('mine', 1)")
        follower.commit()
        assert sorted(follower.rows("SELECT name FROM volume")) == [("mine",), ("x",), ("y1",), ("y2",)]
        assert ChangeLog(follower).has_pending(), "one's own changes are recorded again afterwards"
        last, changes = ChangeLog(follower).pending()
        restore(str(tmp_path / "mine.db"), None, [changes])
        with Database(str(tmp_path / "mine.db")) as mine:
            assert list(mine.rows("SELECT name FROM volume")) == [("mine",)]


def test_what_is_no_changeset_is_said_to_be_damaged(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile):
        difference([b"nonsense"], [])
    with pytest.raises(CorruptFile):
        difference([], [b"nonsense"])
    with Database(str(tmp_path / "follower.db")) as follower, pytest.raises(CorruptFile):
        follower.apply(b"nonsense")
