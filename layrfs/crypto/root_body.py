"""The body of a root record: sealed, because hosts keep it for everybody who asks.

``salt[16] | AES-256-GCM``: the salt gives each body a key of its own; the volume and the version are bound in.
"""

from __future__ import annotations

import secrets
import struct

from layrfs.crypto import labels
from layrfs.crypto.aead import TAG_BYTES, open_sealed, seal
from layrfs.crypto.keys import derive
from layrfs.errors import WrongBytes
from layrfs.ids import SALT_BYTES


def seal_root_body(content_key: bytes, volume: bytes, version: int, plain: bytes) -> bytes:
    """A body that only whoever has the content key can read."""
    salt = secrets.token_bytes(SALT_BYTES)
    key = derive(content_key, labels.ROOT_BODY, salt=salt)
    return salt + seal(key, _bound(volume, version), plain)


def open_root_body(content_key: bytes, volume: bytes, version: int, body: bytes) -> bytes:
    """What was sealed; raises ``WrongBytes``."""
    if len(body) < SALT_BYTES + TAG_BYTES:
        raise WrongBytes("the body of a root record is too short")
    key = derive(content_key, labels.ROOT_BODY, salt=body[:SALT_BYTES])
    return open_sealed(key, _bound(volume, version), body[SALT_BYTES:])


def _bound(volume: bytes, version: int) -> bytes:
    return volume + struct.pack("<Q", version)
