"""Key files: `volume.key` (the phrase's 32 bytes, perhaps behind a passphrase), `node.key` (this machine's) and
`wallet.key` (of a host that is paid).

Written whole or not at all: a private temporary file, fsync, link or rename, fsync of the directory. Readable by their
owner only. A volume's key file is never overwritten by another volume's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable

from layrfs.crypto import keybox, keys
from layrfs.crypto.identity import NodeIdentity
from layrfs.durable import sync_directory
from layrfs.errors import AlreadyExists, CorruptFile, LocalError

_READ_LIMIT_BYTES = 16 * 1024
_NODE_KEY_BYTES = 32


def save_volume_key(path: str, phrase: str, passphrase: str | None) -> None:
    """A new key file for the volume of this phrase. Raises WrongPhrase, AlreadyExists, LocalError."""
    secret = keys.phrase_to_entropy(phrase)
    _write_new(path, keybox.lock(secret, _as_bytes(passphrase)))


def change_passphrase(path: str, ask: Callable[[], str], passphrase: str | None) -> None:
    """Wrap the same secret anew; the old file stays until the new one is durable."""
    secret = _load_entropy(path, ask)
    _replace(path, keybox.lock(secret, _as_bytes(passphrase)))


def load_volume_key(path: str, ask: Callable[[], str]) -> keys.VolumeKeys:
    """The volume's keys. `ask` is called for a passphrase only when the file needs one.

    Raises CorruptFile, NewerFormat, WrongPassphrase, LocalError.
    """
    return keys.VolumeKeys.from_phrase(load_phrase(path, ask))


def load_phrase(path: str, ask: Callable[[], str]) -> str:
    """The 24 words, for `layrfs phrase`. Raises as `load_volume_key` does."""
    return keys.entropy_to_phrase(_load_entropy(path, ask))


def load_or_create_identity(path: str) -> NodeIdentity:
    """This machine's node identity, made on first use. Raises CorruptFile, NewerFormat, LocalError."""
    if not os.path.lexists(path):
        with contextlib.suppress(AlreadyExists):  # another process may be first: both use what it wrote
            keep_identity(path, NodeIdentity.generate().private)
    private = keybox.unlock(_read(path), None)
    if len(private) != _NODE_KEY_BYTES:
        raise CorruptFile(f"the key file {path} does not hold a node's key")
    return NodeIdentity.from_private(private)


def keep_identity(path: str, private: bytes) -> None:
    """In a new key file. Raises AlreadyExists, LocalError."""
    _write_new(path, keybox.lock(private, None))


def _load_entropy(path: str, ask: Callable[[], str]) -> bytes:
    blob = _read(path)
    passphrase = _as_bytes(ask()) if keybox.needs_passphrase(blob) else None
    secret = keybox.unlock(blob, passphrase)
    if len(secret) != keys.ENTROPY_BYTES:
        raise CorruptFile(f"the key file {path} does not hold a recovery phrase")
    return secret


def _as_bytes(passphrase: str | None) -> bytes | None:
    return None if passphrase is None else keybox.normalized_passphrase(passphrase)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_READ_LIMIT_BYTES)
    except OSError as error:
        raise LocalError(f"the key file {path} cannot be read: {error.strerror}") from None


def _write_new(path: str, blob: bytes) -> None:
    """`path` appears with all of `blob`, durable; AlreadyExists when there is something by that name."""
    _write(path, blob, os.link)


def _replace(path: str, blob: bytes) -> None:
    _write(path, blob, os.replace)


def _write(path: str, blob: bytes, publish: Callable[[str, str], None]) -> None:
    temporary = f"{path}.{secrets.token_hex(8)}.tmp"
    try:
        try:
            _write_private(temporary, blob)
            publish(temporary, path)
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)
        sync_directory(os.path.dirname(path))
    except FileExistsError:
        raise AlreadyExists(f"there is a key file already: {path}") from None
    except OSError as error:
        raise LocalError(f"the key file {path} cannot be written: {error.strerror}") from None


def _write_private(path: str, blob: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(descriptor)
