"""The tables of one volume's database, and the version that says which of them a file holds.

Owns the words ``CREATE TABLE``; must not know who reads or writes the rows. The invariants: every table has a declared
primary key, so that SQLite's session extension can record the tables of ``VOLUME_TABLES``; a table that enforces more
than its primary key does so by an index of ``INDEXES``, so that recorded changes can be applied in any order before
those exist. Tables named ``local…`` describe this machine and never leave it.
"""

from __future__ import annotations

SCHEMA_VERSION = 7
"""Kept in ``PRAGMA user_version``; a higher one is a newer LayrFS's file."""

APPLICATION_ID = 0x4C595246
"""``LYRF`` in ``PRAGMA application_id``: tells our file from any other SQLite database."""

VOLUME_TABLES = (
    "volume",
    "inode",
    "entry",
    "attribute",
    "block",
    "content",
    "shard",
    "piece",
    "host",
    "unsent",
    "segment",
    "version",
    "dead",
    "contract",
    "contract_batch",
    "contract_piece",
    "contract_instalment",
)
"""What a volume is: these tables are recorded, published and recovered."""

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

CREATE TABLE entry(
    cookie INTEGER PRIMARY KEY,      -- grows with every name ever made: the order of readdir
    parent INTEGER NOT NULL,
    name BLOB NOT NULL,
    inode INTEGER NOT NULL
) STRICT;

CREATE TABLE attribute(
    inode INTEGER NOT NULL,
    name BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY(inode, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE block(
    inode INTEGER NOT NULL,
    number INTEGER NOT NULL,
    content INTEGER NOT NULL,        -- 0: lost before it ever reached a host
    length INTEGER NOT NULL,         -- valid bytes; the rest of the block reads as zeros
    PRIMARY KEY(inode, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE content(
    number INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    shard INTEGER NOT NULL,
    offset INTEGER NOT NULL,         -- from the first byte after the shard's table
    length INTEGER NOT NULL
) STRICT;

CREATE TABLE shard(
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    salt BLOB NOT NULL,
    plain_bytes INTEGER NOT NULL,
    sealed_bytes INTEGER NOT NULL,
    needed INTEGER NOT NULL,
    total INTEGER NOT NULL,
    generation INTEGER NOT NULL      -- the highest that any of its pieces ever had
) STRICT;

CREATE TABLE piece(
    shard INTEGER NOT NULL,
    position INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    id BLOB NOT NULL,
    host INTEGER NOT NULL,
    PRIMARY KEY(shard, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE host(
    number INTEGER PRIMARY KEY,
    node_id BLOB NOT NULL,
    record BLOB                      -- the signed node record last seen
) STRICT;

CREATE TABLE local(                  -- a row: the block's bytes are in the cache file
    inode INTEGER NOT NULL,
    block INTEGER NOT NULL,
    dirty INTEGER NOT NULL,          -- 1: not on hosts yet; these rows are the journal
    PRIMARY KEY(inode, block)
) STRICT, WITHOUT ROWID;

CREATE TABLE local_use(
    inode INTEGER PRIMARY KEY,
    bytes INTEGER NOT NULL,
    used INTEGER NOT NULL,           -- when it was last read or written, in seconds
    pinned INTEGER NOT NULL DEFAULT 0 -- 1: stays here; directories have such rows too
) STRICT;

CREATE TABLE local_replaced(         -- overwritten whole, and the disk may have neither the old bytes nor the new
    inode INTEGER NOT NULL,
    block INTEGER NOT NULL,
    PRIMARY KEY(inode, block)
) STRICT, WITHOUT ROWID;

CREATE TABLE local_mark(             -- facts about this machine's last run
    name TEXT NOT NULL PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

CREATE TABLE unsent(                 -- blocks whose newest bytes are on no host: what a lost machine takes with it
    inode INTEGER NOT NULL,
    block INTEGER NOT NULL,
    before INTEGER NOT NULL DEFAULT 4194304, -- so much of it was in the file when hosts' bytes (none: zeros) were all
    PRIMARY KEY(inode, block)
) STRICT, WITHOUT ROWID;

CREATE TABLE segment(                -- what retained versions are made of, see model/history.py
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    blob_bytes INTEGER NOT NULL,
    shards BLOB NOT NULL             -- msgpack of its shard records
) STRICT;

CREATE TABLE version(                -- what the volume was, and can be looked at
    number INTEGER PRIMARY KEY,      -- of the root record that first named its last segment
    time_ms INTEGER NOT NULL,
    last_shard INTEGER NOT NULL,     -- the highest shard.number it can refer to
    unsent INTEGER NOT NULL,         -- how many blocks were on no host then
    name TEXT,                       -- of one made by hand: kept until it is deleted
    segments BLOB NOT NULL           -- msgpack of their numbers, in order
) STRICT;

CREATE TABLE dead(                   -- shards that no block needs any more
    shard INTEGER PRIMARY KEY,
    since INTEGER NOT NULL           -- the number of the first version that does not
) STRICT;

CREATE TABLE contract(               -- with hosts that are paid, see model/contracts.py
    number INTEGER PRIMARY KEY,      -- in this table; the one between owner and host is in the terms
    node BLOB NOT NULL,
    terms BLOB NOT NULL,
    state TEXT NOT NULL,             -- of policy/contracts.py
    whole INTEGER NOT NULL           -- 0: the host has covers that are not here, so there can be no more
) STRICT;

CREATE TABLE contract_batch(         -- the pieces that one cover added
    contract INTEGER NOT NULL,
    number INTEGER NOT NULL,
    first INTEGER NOT NULL,          -- the first instalment that they are part of
    at INTEGER NOT NULL,             -- since when they are paid for, in seconds
    bytes INTEGER NOT NULL,
    digests BLOB NOT NULL,           -- 32 bytes for each instalment from the first on
    covered INTEGER NOT NULL,        -- 1: the host has agreed
    PRIMARY KEY(contract, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE contract_piece(         -- while a row is here, the piece stays at its host
    piece BLOB NOT NULL,
    contract INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    PRIMARY KEY(piece, contract)
) STRICT, WITHOUT ROWID;

CREATE TABLE contract_instalment(
    contract INTEGER NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,             -- of policy/contracts.py
    paid_stroops INTEGER NOT NULL,   -- as seen on the ledger
    payment BLOB,                    -- the hash of that transaction
    PRIMARY KEY(contract, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE local_payable(          -- what hosts will be paid for, and is in no batch yet
    contract INTEGER NOT NULL,
    piece BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    first INTEGER NOT NULL,
    digests BLOB NOT NULL,           -- 32 bytes for each instalment from the first on
    PRIMARY KEY(contract, piece)
) STRICT, WITHOUT ROWID;

CREATE TABLE local_change(           -- changesets of VOLUME_TABLES that are in no segment yet, one per commit
    number INTEGER PRIMARY KEY,
    changes BLOB NOT NULL
) STRICT;

CREATE TABLE local_retired(          -- pieces that nothing needs any more, to be dropped by their hosts
    piece BLOB NOT NULL,
    host BLOB NOT NULL,
    version INTEGER NOT NULL,        -- the first version that does not know them
    since INTEGER,                   -- when hosts had that, in seconds; NULL: they have not yet
    PRIMARY KEY(piece, host)
) STRICT, WITHOUT ROWID;

CREATE TABLE local_renewed(          -- when all pieces of a host were last renewed, in seconds
    host BLOB NOT NULL PRIMARY KEY,
    renewed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE local_trust(            -- what this machine remembers of how hosts did
    host BLOB NOT NULL PRIMARY KEY,
    memory BLOB NOT NULL             -- msgpack of policy.trust.Trust
) STRICT, WITHOUT ROWID;

CREATE TABLE local_answer(           -- what hosts will have to answer about their pieces, see model/answers.py
    piece BLOB NOT NULL,             -- the first 8 bytes of its id
    number INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY(piece, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE local_refuted(          -- pieces on record that their hosts have proven not to have
    piece BLOB NOT NULL PRIMARY KEY,
    shard INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE local_delegate(         -- nodes that look after the volume while this machine is not there
    node BLOB NOT NULL PRIMARY KEY,
    seconds INTEGER NOT NULL,        -- for so long after it was last heard of
    heard INTEGER,                   -- when it last had all there was to say, in seconds
    lies INTEGER NOT NULL,           -- how often it said something that was not so
    problem TEXT                     -- why it was not told lately
) STRICT, WITHOUT ROWID;

CREATE TABLE local_entrusted(        -- only at a delegate: shards as their owner knows them
    shard INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,     -- pieces above it were made here
    pieces BLOB NOT NULL,            -- msgpack: ids by position
    purpose BLOB NOT NULL            -- msgpack: what notes say of its pieces
) STRICT;

CREATE TABLE local_bucket(           -- only at a delegate: what it has been entrusted with
    number INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;

CREATE TABLE local_hosted(           -- only at a host with a price: its contracts with owners
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    tenant BLOB NOT NULL,
    escrow BLOB NOT NULL,            -- the account that pays for this one alone
    terms BLOB NOT NULL,             -- as they were agreed to, see model/contracts.py
    state TEXT NOT NULL,             -- see policy/contracts.py
    since INTEGER NOT NULL,          -- when it became so, by the ledger's clock
    released INTEGER NOT NULL DEFAULT 0, -- 1: its pieces are not kept for it any more
    late INTEGER NOT NULL,           -- 1: it was taken up again in the middle: its record was lost
    end_stroops INTEGER,             -- what it gets by an end by consent that was signed and may come, or came
    end_sequence INTEGER,            -- the number of that transaction
    end_latest INTEGER               -- until when it may come, by the ledger's clock
) STRICT;

CREATE TABLE local_hosted_batch(     -- what an owner has covered
    contract INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    first INTEGER NOT NULL,          -- the first instalment it has to do with
    at INTEGER NOT NULL,             -- since when it is paid for, in seconds
    bytes INTEGER NOT NULL,
    PRIMARY KEY(contract, batch)
) STRICT, WITHOUT ROWID;

CREATE TABLE local_hosted_piece(
    contract INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    position INTEGER NOT NULL,       -- the order in which they are hashed
    piece BLOB NOT NULL,
    PRIMARY KEY(contract, batch, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE local_hosted_instalment(-- what it takes to claim one, as it was last covered
    contract INTEGER NOT NULL,
    instalment INTEGER NOT NULL,
    amount INTEGER NOT NULL,         -- stroops; 0: nothing is covered yet
    hash BLOB NOT NULL,
    signature BLOB NOT NULL,
    salt BLOB,                       -- the owner has disclosed it
    salts INTEGER NOT NULL DEFAULT 0, -- how many different ones it has tried
    problem TEXT,                    -- why it comes to nothing with this salt
    state TEXT NOT NULL DEFAULT 'waiting', -- see policy/contracts.py
    PRIMARY KEY(contract, instalment)
) STRICT, WITHOUT ROWID;

CREATE TABLE local_uncovered(        -- pieces that no contract covers
    piece BLOB NOT NULL PRIMARY KEY,
    tenant BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    stored INTEGER NOT NULL,         -- in seconds
    until INTEGER                    -- NULL: on credit; else one covered it, and so long it waits for the next
) STRICT, WITHOUT ROWID;

CREATE TABLE local_intent(           -- transactions that may come, see model/intents.py
    hash BLOB NOT NULL PRIMARY KEY,
    xdr TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    abandoned INTEGER NOT NULL       -- 1: it is not sent again, only watched
) STRICT, WITHOUT ROWID;

CREATE TABLE local_audit(            -- how far the audits of a host are
    host BLOB NOT NULL PRIMARY KEY,
    visited INTEGER NOT NULL,        -- when it was last asked for all that was due, in seconds
    cursor BLOB                      -- the piece that the sweep asked for last
) STRICT, WITHOUT ROWID;
"""

INDEXES = """
CREATE INDEX inode_orphan ON inode(number) WHERE nlink = 0;
CREATE UNIQUE INDEX entry_name ON entry(parent, name);
CREATE INDEX entry_parent ON entry(parent, cookie);
CREATE INDEX entry_inode ON entry(inode);
CREATE INDEX block_content ON block(content);
CREATE INDEX block_lost ON block(inode) WHERE content = 0;
CREATE UNIQUE INDEX content_digest ON content(digest);
CREATE INDEX content_shard ON content(shard);
CREATE UNIQUE INDEX shard_id ON shard(id);
CREATE INDEX piece_host ON piece(host);
CREATE UNIQUE INDEX host_node ON host(node_id);
CREATE UNIQUE INDEX version_name ON version(name);
CREATE UNIQUE INDEX local_hosted_id ON local_hosted(id);
CREATE UNIQUE INDEX local_hosted_escrow ON local_hosted(escrow);
CREATE INDEX local_hosted_tenant ON local_hosted(tenant);
CREATE INDEX local_hosted_of_piece ON local_hosted_piece(piece);
CREATE INDEX local_uncovered_tenant ON local_uncovered(tenant);
CREATE INDEX local_uncovered_until ON local_uncovered(until) WHERE until IS NOT NULL;
CREATE INDEX local_dirty ON local(inode, block) WHERE dirty = 1;
CREATE INDEX local_retired_due ON local_retired(host, since);
CREATE INDEX local_use_order ON local_use(used, inode) WHERE bytes > 0 AND pinned = 0;
CREATE INDEX contract_node ON contract(node);
CREATE INDEX contract_piece_batch ON contract_piece(contract, batch);
CREATE INDEX local_payable_piece ON local_payable(piece);
CREATE INDEX local_use_pinned ON local_use(inode, bytes) WHERE pinned = 1;

CREATE TRIGGER answer_gone AFTER DELETE ON piece BEGIN
    DELETE FROM local_answer WHERE piece = substr(OLD.id, 1, 8);
END;
CREATE TRIGGER payable_gone AFTER DELETE ON piece BEGIN
    DELETE FROM local_payable WHERE piece = OLD.id;
END;
CREATE TRIGGER refuted_gone AFTER DELETE ON piece BEGIN
    DELETE FROM local_refuted WHERE piece = OLD.id;
END;
CREATE TRIGGER refuted_replaced BEFORE INSERT ON piece BEGIN
    DELETE FROM local_refuted WHERE piece =
        (SELECT id FROM piece WHERE shard = NEW.shard AND position = NEW.position AND id <> NEW.id);
END;
CREATE TRIGGER answer_replaced BEFORE INSERT ON piece BEGIN
    DELETE FROM local_answer WHERE piece =
        (SELECT substr(id, 1, 8) FROM piece WHERE shard = NEW.shard AND position = NEW.position AND id <> NEW.id);
END;
CREATE TRIGGER piece_changed AFTER UPDATE ON piece WHEN OLD.id <> NEW.id OR OLD.host <> NEW.host BEGIN
    DELETE FROM local_refuted WHERE piece = OLD.id;
    DELETE FROM local_answer WHERE piece = substr(OLD.id, 1, 8);
END;
CREATE TRIGGER unsent_new AFTER INSERT ON local WHEN NEW.dirty = 1 BEGIN
    INSERT OR IGNORE INTO unsent VALUES(NEW.inode, NEW.block, coalesce(
        (SELECT max(0, min(block_bytes, size - NEW.block * block_bytes)) FROM inode WHERE number = NEW.inode), 0));
END;
CREATE TRIGGER unsent_sent AFTER INSERT ON local WHEN NEW.dirty = 0 BEGIN
    DELETE FROM unsent WHERE inode = NEW.inode AND block = NEW.block;
END;
CREATE TRIGGER unsent_gone AFTER DELETE ON local WHEN OLD.dirty = 1 BEGIN
    DELETE FROM unsent WHERE inode = OLD.inode AND block = OLD.block;
END;
"""
"""Made after the tables are filled. The triggers need ``local`` to change by INSERT OR REPLACE and DELETE only; rows of
``piece`` are updated by the changes of another machine, which are applied."""
