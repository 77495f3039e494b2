"""The one tree of errors, arranged to answer two questions.

*Whose fault is it?* is the branch: ``OwnerError`` (what was asked cannot be done), ``LocalError`` (this machine),
``RemoteError`` (a stranger on the network), ``FileError`` (an answer every file system gives).
*Is trying again useful?* is the class attribute ``retry``.

The text of an error is one clear sentence for a person. Errnos do not exist here: ``layrfs.fuse.errnos`` alone knows
them, exit codes are known to ``layrfs.cli`` alone.
"""

from __future__ import annotations

from typing import ClassVar


class LayrError(Exception):
    """Everything LayrFS raises on purpose."""

    retry: ClassVar[bool] = False


class OwnerError(LayrError):
    """What the person or program asked for cannot be done as asked; nothing was touched."""


class UsageError(OwnerError):
    """Options or arguments that make no sense."""


class WrongPhrase(OwnerError):
    """The recovery phrase is not one, or belongs to another volume."""


class WrongPassphrase(OwnerError):
    """The key file does not open with this passphrase."""


class CorruptFile(OwnerError):
    """A file of ours does not hold what it should."""


class NewerFormat(OwnerError):
    """Written by a newer LayrFS than this one."""


class StateInUse(OwnerError):
    """Another process holds this volume, host directory or port."""


class VolumeHeld(OwnerError):
    """Another machine writes to the volume."""


class Superseded(OwnerError):
    """Another machine has written to the volume since: what this one would publish must not replace that."""


class NotRunning(OwnerError):
    """Needs a running drive, and none answers."""


class NoVolume(OwnerError):
    """There is no volume of this name on this machine."""


class BadMountpoint(OwnerError):
    """Nothing can be mounted there."""


class WrongLedger(OwnerError):
    """The ledger that answers is another network than the one that was chosen."""


class Unfunded(OwnerError):
    """The wallet has no account on the ledger, or less than is needed."""


class LocalError(LayrError):
    """This machine's disk, kernel or processes failed us."""


class NoFuse(LocalError):
    """The kernel's FUSE, or the right to use it, is missing."""


class NoSpace(LocalError):
    """The local disk, or the room set aside on it, is full."""


class WorkerLost(LocalError):
    """A worker process ended in the middle of a job; the job may be done again."""

    retry: ClassVar[bool] = True


class RemoteError(LayrError):
    """Somebody else on the network failed us."""

    retry: ClassVar[bool] = True


class BadMessage(RemoteError):
    """A stranger's bytes are not what the protocol says. The only exception ``*_untrusted`` functions raise."""

    retry: ClassVar[bool] = False


class Unreachable(RemoteError):
    """No connection, or no answer before the deadline."""


class TimedOut(Unreachable):
    """There was a connection, to the right host, and no answer before the deadline."""


class Refused(RemoteError):
    """A host understood us and said no (full, too dear, not the owner, too busy)."""


class WrongBytes(RemoteError):
    """A host answered with bytes that are not the piece it was asked for."""

    retry: ClassVar[bool] = False


class MissingPiece(RemoteError):
    """A host says it does not have the piece."""

    retry: ClassVar[bool] = False


class Unavailable(RemoteError):
    """Too few good pieces, or too few eligible hosts, can be reached right now."""


class LedgerUnavailable(RemoteError):
    """The ledger cannot be asked now, or its answer made no sense."""


class Rejected(RemoteError):
    """The ledger does not take a transaction; ``codes`` are its reasons, the transaction's first."""

    retry: ClassVar[bool] = False

    def __init__(self, message: str, codes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.codes = codes


class FileError(LayrError):
    """What any file system may answer; the names are POSIX's, in words."""


class NotFound(FileError):
    """No such file or directory."""


class AlreadyExists(FileError):
    """The name is taken."""


class NotADirectory(FileError):
    """A directory was needed."""


class IsADirectory(FileError):
    """Anything but a directory was needed."""


class NotEmpty(FileError):
    """The directory has entries."""


class NotPermitted(FileError):
    """The operation is not permitted (EPERM)."""


class AccessDenied(FileError):
    """Permission bits forbid it (EACCES)."""


class InvalidArgument(FileError):
    """The arguments make no sense together."""


class NameTooLong(FileError):
    """A name of more than 255 bytes."""


class FileTooLarge(FileError):
    """Beyond what the file system or the local disk can address."""


class TooManyLinks(FileError):
    """The link count is at its limit."""


class NoAttribute(FileError):
    """The extended attribute does not exist."""


class NotSupported(FileError):
    """This file system does not do that."""


class ReadOnly(FileError):
    """The volume is mounted read-only."""


def innermost(error: BaseException) -> BaseException:
    """What was raised, out of the groups nurseries wrap around it: of several the first that was on purpose."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    inside = [innermost(each) for each in error.exceptions]
    return next((each for each in inside if isinstance(each, LayrError)), inside[0])


def named(kind: str, message: str) -> LayrError:
    """The error another process of ours described by its class; a plain LayrError when there is no such class."""
    found = globals().get(kind)
    return found(message) if isinstance(found, type) and issubclass(found, LayrError) else LayrError(message)
