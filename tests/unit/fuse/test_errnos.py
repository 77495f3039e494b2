"""Every error has an errno, and nothing else leaves a handler."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator

import pyfuse3
import pytest
import trio

from layrfs import errors
from layrfs.fuse.errnos import answered, errno_of


def every_error(kind: type[errors.LayrError] = errors.LayrError) -> Iterator[type[errors.LayrError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from every_error(child)


@pytest.mark.parametrize("kind", list(every_error()))
def test_every_error_of_ours_has_an_errno(kind: type[errors.LayrError]) -> None:
    assert errno_of(kind("sentence")) in errno.errorcode


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound(""), errno.ENOENT),
        (errors.NoAttribute(""), errno.ENODATA),
        (errors.NoSpace(""), errno.ENOSPC),
        (errors.Unavailable(""), errno.EIO),
        (errors.WorkerLost(""), errno.EIO),
        (errors.UsageError(""), errno.EINVAL),
        (OSError(errno.EFBIG, ""), errno.EFBIG),
        (OSError("no number"), errno.EIO),
        (ExceptionGroup("", [errors.Unavailable("")]), errno.EIO),
        (ExceptionGroup("", [ExceptionGroup("", [errors.NoSpace("")])]), errno.ENOSPC),
        (ExceptionGroup("", [errors.NoSpace(""), ZeroDivisionError()]), None),
        (ZeroDivisionError(), None),
    ],
)
def test_errnos(error: Exception, code: int | None) -> None:
    assert errno_of(error) == code


async def ask(error: BaseException | None) -> int:
    @answered
    async def handler(answer: int) -> int:
        await trio.lowlevel.checkpoint()
        if error is not None:
            raise error
        return answer

    return await handler(7)


async def test_answers_pass() -> None:
    assert await ask(None) == 7


async def test_a_fuse_error_passes_as_it_is() -> None:
    error = pyfuse3.FUSEError(errno.ENOSYS)
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await ask(error)
    assert caught.value is error


async def test_what_nobody_expects_is_logged_and_becomes_eio(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await ask(ZeroDivisionError("oops"))
    assert caught.value.errno == errno.EIO
    assert "oops" in caplog.text


async def test_everyday_errors_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(pyfuse3.FUSEError):
        await ask(errors.NotFound("no such name"))
    assert caplog.text == ""


async def test_cancellation_is_not_an_answer() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await ask(None)
        raise AssertionError("went on")
    assert scope.cancelled_caught
