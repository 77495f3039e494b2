"""A version of the volume as a root record: sealed, signed, and not too large to be kept. Must not know hosts."""

from __future__ import annotations

from layrfs.crypto.keys import VolumeKeys
from layrfs.crypto.root_body import seal_root_body
from layrfs.errors import LocalError
from layrfs.model.history import History
from layrfs.model.root_record import BODY_LIMIT_BYTES, RootRecord


def signed_record(keys: VolumeKeys, version: int, history: History) -> RootRecord:
    """Raises ``LocalError`` when there are too many segments."""
    body = seal_root_body(keys.content, keys.volume_id, version, history.to_bytes())
    if len(body) > BODY_LIMIT_BYTES:
        raise LocalError("The volume's history does not fit into a root record.")
    return RootRecord.sign(keys.root_private, version=version, time_ms=history.time_ms, body=body)
