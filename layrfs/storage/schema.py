"""The tables of one volume's database, and the version that says which of them a file holds.

Owns the words ``CREATE TABLE``; must not know who reads or writes the rows. The invariant: every table has a declared
primary key, so that SQLite's session extension can record the volume tables. ``local`` and ``local_use`` describe this
machine's cache and never leave it.
"""

from __future__ import annotations

SCHEMA_VERSION = 1
"""Kept in ``PRAGMA user_version``; a higher one is a newer LayrFS's file."""

APPLICATION_ID = 0x4C595246
"""``LYRF`` in ``PRAGMA application_id``: tells our file from any other SQLite database."""

TABLES = """
CREATE TABLE volume(
    name TEXT NOT NULL PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

CREATE TABLE inode(
    number INTEGER PRIMARY KEY,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    nlink INTEGER NOT NULL,
    size INTEGER NOT NULL,
    block_bytes INTEGER NOT NULL,
    rdev INTEGER NOT NULL,
    atime_ns INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    target BLOB                      -- of a symbolic link
) STRICT;
CREATE INDEX inode_orphan ON inode(number) WHERE nlink = 0;

CREATE TABLE entry(
    cookie INTEGER PRIMARY KEY,      -- grows with every name ever made: the order of readdir
    parent INTEGER NOT NULL,
    name BLOB NOT NULL,
    inode INTEGER NOT NULL,
    UNIQUE(parent, name)
) STRICT;
CREATE INDEX entry_parent ON entry(parent, cookie);
CREATE INDEX entry_inode ON entry(inode);

CREATE TABLE attribute(
    inode INTEGER NOT NULL,
    name BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY(inode, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE block(
    inode INTEGER NOT NULL,
    number INTEGER NOT NULL,
    content INTEGER NOT NULL,
    length INTEGER NOT NULL,         -- valid bytes; the rest of the block reads as zeros
    PRIMARY KEY(inode, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX block_content ON block(content);

CREATE TABLE content(
    number INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    shard INTEGER NOT NULL,
    offset INTEGER NOT NULL,         -- from the first byte after the shard's table
    length INTEGER NOT NULL
) STRICT;
CREATE INDEX content_shard ON content(shard);

CREATE TABLE shard(
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    salt BLOB NOT NULL,
    plain_bytes INTEGER NOT NULL,
    sealed_bytes INTEGER NOT NULL,
    needed INTEGER NOT NULL,
    total INTEGER NOT NULL
) STRICT;

CREATE TABLE piece(
    shard INTEGER NOT NULL,
    position INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    id BLOB NOT NULL,
    host INTEGER NOT NULL,
    PRIMARY KEY(shard, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX piece_host ON piece(host);

CREATE TABLE host(
    number INTEGER PRIMARY KEY,
    node_id BLOB NOT NULL UNIQUE,
    record BLOB                      -- the signed node record last seen
) STRICT;

CREATE TABLE local(                  -- a row: the block's bytes are in the cache file
    inode INTEGER NOT NULL,
    block INTEGER NOT NULL,
    dirty INTEGER NOT NULL,          -- 1: not on hosts yet; these rows are the journal
    PRIMARY KEY(inode, block)
) STRICT, WITHOUT ROWID;
CREATE INDEX local_dirty ON local(inode, block) WHERE dirty = 1;

CREATE TABLE local_use(
    inode INTEGER PRIMARY KEY,
    bytes INTEGER NOT NULL,
    used INTEGER NOT NULL            -- when it was last read or written, in seconds
) STRICT;
"""
