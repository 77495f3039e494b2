"""Named moments between two steps of the order of writes, where a test may have a process die.

Owns the list of names and the dying. Must not know what happens before or after a point: the code calls ``reached``
there, and design.md section 4 says in which order. Works in every process of ours (mount, workers, hosts, commands).

Armed by the environment alone: with ``LAYRFS_CRASH_POINT=NAME@TIMES@FILE`` the process that passes the point for the
TIMES-th time kills itself with SIGKILL, if it is the one that removes FILE: a crash happens once, whichever of several
processes gets there and however often they are started again, and whoever set it up sees that it did.
Invariant: without that variable a point costs one comparison.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

VARIABLE = "LAYRFS_CRASH_POINT"

POINTS: Mapping[str, str] = MappingProxyType(
    {
        "bytes cached": "A write's bytes are in the cache file, no row says so yet.",
        "dirty mark made": "Rows call a clean block dirty, in the open transaction; its bytes are unchanged.",
        "dirty mark committed": "The same, committed.",
        "cache file synced": "fsync: the bytes are on the disk, the rows are not.",
        "log committed": "fsync: rows are in the write-ahead log, which is not on the disk.",
        "log synced": "fsync: all is on the disk, the caller does not know.",
        "truncation committed": "The rows of a cut file are gone, the bytes beyond its end are not.",
        "truncated": "The bytes are gone too; the new size is in the open transaction or committed.",
        "renamed": "A name stands for another inode, in the open transaction.",
        "removal synced": "The rows of a deleted file are gone, on the disk; its cache file is not.",
        "removed": "Its cache file is gone too.",
        "blocks resized": "A file's dirty blocks are numbered anew, in the open transaction.",
        "shard sealed": "A worker has sealed a shard; no host has a piece.",
        "pieces placed": "A worker has receipts for the pieces of a shard; the mount does not know.",
        "receipts arrived": "The mount knows, no row does.",
        "upload recorded": "Shard, pieces and clean blocks are in the open transaction.",
        "segment uploaded": "The changes are a segment on hosts; no record names it.",
        "record saved": "The record that names it is on this disk, on no host.",
        "record on hosts": "Hosts keep the record; this disk does not say so.",
        "publication noted": "All is said; files of merged changesets are left over.",
        "contents moved": "Packing or coding anew: the rows say where the bytes are now, in the open transaction.",
        "shards marked": "Shards that nothing needs are marked, in the open transaction.",
        "shards removed": "They are not in the tables any more, in the open transaction; their pieces are retired.",
        "retired pieces dropped": "Hosts were asked to forget retired pieces, which are still listed.",
        "pieces made anew": "Patching: hosts have pieces that no row knows.",
        "pieces replaced": "Rows name them, and what they replace is retired, in the open transaction.",
        "eviction committed": "Rows do not call blocks clean any more; their bytes are in the cache file.",
        "evicted": "The bytes are gone too.",
        "block fetched": "A worker has written a fetched block to the cache file; the mount does not know.",
        "fetch arrived": "The mount knows, no row does.",
        "cache examined": "After a crash: rows and cache files agree again, in the open transaction.",
        "database rebuilt": "recover: the database is complete, under a temporary name.",
        "database named": "recover: it has its name.",
        "fsck: database complete": "A damaged database was made anew, under a temporary name.",
        "fsck: old database set aside": "The damaged one has a second name, and a note says so.",
        "fsck: database exchanged": "The new one has its name; the note still forbids its use.",
        "new file written": "A small file that replaces another is on the disk, under a temporary name.",
        "new file named": "It has its name, which may not be on the disk.",
        "intent kept": "A transaction is written down, durably; nothing was sent.",
        "transaction sent": "The ledger was handed it and has answered, or not; its fate was not looked up.",
        "intent forgotten": "Its fate is known and it is not written down any more; nobody was told.",
        "terms kept": "Owner: terms that a host agreed to are on the disk; the escrow is not set up.",
        "escrow seen": "Owner: the escrow is on the ledger, that is in the open transaction; the host does not know.",
        "cover offered": "Owner: a batch is on the disk; its host was not told.",
        "cover agreed": "Owner: the host has agreed to it; no row says so.",
        "disclosure noted": "Owner: an instalment is called disclosed, on the disk; its salt was told to nobody.",
        "salt disclosed": "Owner: the host has the salt.",
        "claim noted": "Owner: an instalment that the ledger has paid is called so, in the open transaction.",
        "escrow back": "Owner: a contract's escrow is merged; no row says so.",
        "end wished": "Owner: a contract that nothing needs is called so, on the disk; its host was not told.",
        "end signed": "Owner: the host has signed an end by consent; the ledger was not handed it.",
        "end seen": "Owner: it is on the ledger; no row says so.",
        "piece written": "Host: a piece is on the disk, under a temporary name.",
        "piece named": "Host: it has its name, which may not be on the disk.",
        "piece durable": "Host: it is stored for good; the owner does not know.",
        "ledger written": "Development ledger: a ledger's rows are in the open transaction.",
        "ledger closed": "Development ledger: they are on the disk; whoever handed a transaction in does not know.",
        "contract agreed": "Paid host: terms are on record; the owner does not know.",
        "contract open": "Paid host: the escrow was found good, and that is on record; the owner does not know.",
        "cover recorded": "Paid host: pieces and locks are on record; the owner does not know.",
        "salt recorded": "Paid host: a salt is on record; nothing is claimed with it.",
        "end recorded": "Paid host: an end by consent that it is about to sign is on record; the owner does not know.",
        "end decided": "Paid host: whether it came is known, in the open transaction.",
        "claim recorded": "Paid host: the ledger has paid, and that is on record.",
        "root kept": "Host: a root record is stored for good; the owner does not know.",
    }
)


class _Armed(NamedTuple):
    name: str
    times: int
    file: str
    passes: Iterator[int]


def armed(setting: str | None) -> _Armed | None:
    """What the variable says; None when it is not set. Raises ``ValueError`` for what makes no sense."""
    if setting is None:
        return None
    name, times, file = setting.split("@", 2)
    if name not in POINTS:
        raise ValueError(f"{name!r} is no crash point")
    return _Armed(name, int(times), file, itertools.count(1))


_ARMED = armed(os.environ.get(VARIABLE))


def reached(name: str) -> None:
    """The code has got to a point of the list."""
    if _ARMED is not None:
        _die_at(_ARMED, name)


def _die_at(point: _Armed, name: str) -> None:
    if name not in POINTS:
        raise ValueError(f"{name!r} is no crash point")
    if name == point.name and next(point.passes) >= point.times:
        try:
            os.unlink(point.file)
        except FileNotFoundError:
            return  # it has happened already
        os.kill(os.getpid(), signal.SIGKILL)
