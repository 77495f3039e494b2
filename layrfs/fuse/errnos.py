"""Errors to errnos: the only place where the two meet.

Owns the table. The invariant: every handler is wrapped in ``answered``, because any exception but ``FUSEError`` that
leaves one ends the mount.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pyfuse3

from layrfs import errors

logger = logging.getLogger(__name__)

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")
_Handler = Callable[_Arguments, Coroutine[Any, Any, _Answer]]

ERRNOS: dict[type[errors.LayrError], int] = {
    errors.NotFound: errno.ENOENT,
    errors.AlreadyExists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.NotEmpty: errno.ENOTEMPTY,
    errors.NotPermitted: errno.EPERM,
    errors.AccessDenied: errno.EACCES,
    errors.InvalidArgument: errno.EINVAL,
    errors.NameTooLong: errno.ENAMETOOLONG,
    errors.FileTooLarge: errno.EFBIG,
    errors.TooManyLinks: errno.EMLINK,
    errors.NoAttribute: errno.ENODATA,
    errors.NotSupported: errno.EOPNOTSUPP,
    errors.ReadOnly: errno.EROFS,
    errors.NoSpace: errno.ENOSPC,
    errors.CorruptFile: errno.EIO,
    errors.Superseded: errno.EROFS,
    errors.OwnerError: errno.EINVAL,
    errors.LocalError: errno.EIO,
    errors.RemoteError: errno.EIO,
    errors.LayrError: errno.EIO,
}


def errno_of(error: Exception) -> int | None:
    """The errno for an error of ours or the operating system's; None for one nobody expects."""
    if isinstance(error, errors.LayrError):
        return next(ERRNOS[kind] for kind in type(error).__mro__ if kind in ERRNOS)
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    if isinstance(error, ExceptionGroup):
        found = [errno_of(inner) for inner in error.exceptions]
        return None if None in found else found[0]
    return None


def fuse_error(error: Exception) -> pyfuse3.FUSEError:
    """What a handler raises instead of ``error``; what nobody expects is logged and becomes EIO."""
    if isinstance(error, pyfuse3.FUSEError):
        return error
    code = errno_of(error)
    if code is None:
        logger.error("a request failed in a way nobody expected", exc_info=error)
    elif code in {errno.EIO, errno.ENOSPC}:
        logger.warning("a request failed: %s", error)
    return pyfuse3.FUSEError(errno.EIO if code is None else code)


def answered(handler: _Handler[_Arguments, _Answer]) -> _Handler[_Arguments, _Answer]:
    """Wrap a handler so that nothing but ``FUSEError`` (and cancellation) leaves it."""

    @functools.wraps(handler)
    async def guarded(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Answer:
        try:
            return await handler(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - any other exception would end the mount
            raise fuse_error(error) from None

    return guarded
