"""Every label that keeps one use of a hash, a key or a signature apart from every other: the one page of them.

Invariant: no label is used for two purposes, none is a prefix of another, and none is ever changed. A new purpose, or
a new version of an old one, gets a new line.
"""

from __future__ import annotations

from typing import Final

# HKDF-SHA256 `info`, from the BIP-39 seed.
CONTENT_KEY: Final = b"LayrFS v1 content key"
MASK_KEY: Final = b"LayrFS v1 mask key"
ROOT_KEY: Final = b"LayrFS v1 root key"

# HKDF-SHA256 `info`, from the content key.
SHARD_KEY: Final = b"LayrFS v1 shard sealing"
DIGEST_KEY: Final = b"LayrFS v1 block digest"
ROOT_BODY: Final = b"LayrFS v1 root record body"

# HKDF-SHA256 `info`, from the mask key (followed by the fixed-length numbers that docs/format.md names).
PIECE_MASK: Final = b"LayrFS v1 piece mask"
TENANT_KEY: Final = b"LayrFS v1 tenant key"
PIECE_NOTE: Final = b"LayrFS v1 piece note"
ANSWER_SALT: Final = b"LayrFS v1 answer salt"

# HKDF-SHA256 `info`, from the wallet's key (the first two followed by the numbers that docs/payments.md names).
ESCROW_KEY: Final = b"LayrFS v1 escrow key"
SETUP_MEMO: Final = b"LayrFS v1 memo of a contract's setup"
INSTALMENT_SALTS: Final = b"LayrFS v1 salts of instalments"

# HKDF-SHA256 `info`, from the key of the salts.
INSTALMENT_SALT: Final = b"LayrFS v1 salt of one instalment"

# BLAKE3 derive-key contexts.
MERKLE_LEAF: Final = "LayrFS v1 merkle leaf"
MERKLE_INNER: Final = "LayrFS v1 merkle inner"
MERKLE_ROOT: Final = "LayrFS v1 merkle root"
ROOT_PLACE: Final = "LayrFS v1 root record place"
SHARD_ID: Final = "LayrFS v1 shard id"
CHALLENGED_LEAVES: Final = "LayrFS v1 challenged leaves"
PIECE_FILE_HEAD: Final = "LayrFS v1 piece file head"
BUCKET_DIGEST: Final = "LayrFS v1 entrusted bucket"
CONTRACT_ID: Final = "LayrFS v1 contract id"
INSTALMENT_BATCH: Final = "LayrFS v1 instalment batch"
INSTALMENT_ANSWER: Final = "LayrFS v1 instalment answer"
KEY_FILE_CHECKSUM: Final = "LayrFS v1 key file checksum"
CERTIFICATE_SERIAL: Final = "LayrFS v1 certificate serial"
DUMMY_CA_KEY: Final = "LayrFS v1 public dummy certificate authority"

# Associated data of AES-256-GCM.
KEY_FILE_BOX: Final = b"LayrFS v1 key file box"

# Ed25519: what is signed is the label, a zero byte and the message (see `signed_bytes`).
SIGN_NODE_RECORD: Final = b"LayrFS v1 node record signature"
SIGN_DATAGRAM: Final = b"LayrFS v1 datagram signature"
SIGN_DELETE: Final = b"LayrFS v1 delete signature"
SIGN_INVENTORY: Final = b"LayrFS v1 inventory signature"
SIGN_ROOT_RECORD: Final = b"LayrFS v1 root record signature"
SIGN_RENEW: Final = b"LayrFS v1 renew signature"
SIGN_DELEGATION: Final = b"LayrFS v1 delegation signature"
SIGN_PATCH: Final = b"LayrFS v1 patch record signature"
SIGN_CONTRACT: Final = b"LayrFS v1 contract signature"


def signed_bytes(label: bytes, message: bytes) -> bytes:
    """The bytes that are really signed for `message`: a signature made for one purpose is worthless for another."""
    return label + b"\0" + message
