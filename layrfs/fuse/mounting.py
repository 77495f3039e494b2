"""Mounting, answering the kernel, and unmounting without losing a byte.

Owns the one FUSE session of the process. Must not know what is mounted, nor whether the mountpoint is a sensible one.

The invariant: ``serve`` never returns with the directory still mounted. Before the session ends the kernel is given
the chance to write back what it still holds, and is answered while it does; nobody who hangs can hold it up for longer
than ``STOP_SECONDS``.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from typing import Final

import pyfuse3
import trio

from layrfs.config import MountOptions
from layrfs.errors import LocalError
from layrfs.fuse.receiving import never_wait
from layrfs.ids import InodeNumber

MAX_TASKS = 300
"""Requests answered at once; reads that wait for hosts must not keep ``ls`` waiting."""

IDLE_TASKS = 16
"""Kept for the next burst: each new one costs a task and a buffer of 1 MiB."""

READ_AHEAD_KIB = 4096
"""The kernel's own is 128 KiB, too little for blocks that come from afar."""

STOP_SECONDS: Final = 10.0
_OCTAL = re.compile(r"\\([0-7]{3})")


async def serve(
    operations: pyfuse3.Operations,
    mountpoint: str,
    options: MountOptions,
    *,
    source: str,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount, and answer requests until somebody unmounts or this task is cancelled.

    ``mountpoint`` is an absolute path without symbolic links; ``source`` (``layrfs:NAME``) is for the mount table.
    The status is given when the mount answers. Raises ``LocalError`` when it cannot be mounted.
    """
    _mount(operations, mountpoint, kernel_options(options, source))
    device = _device_of(mountpoint)
    try:
        never_wait()
        await _answer(mountpoint, task_status)
    finally:
        pyfuse3.close(unmount=True)
        if device is not None and _device_of(mountpoint) == device:
            with trio.CancelScope(shield=True):  # libfuse leaves a connection that the kernel aborted mounted
                await trio.run_process(["fusermount3", "-uz", "--", mountpoint], check=False, capture_stderr=True)


def kernel_options(options: MountOptions, source: str) -> set[str]:
    """What is handed to libfuse. The kernel always checks permissions: nobody else does."""
    words = {"default_permissions", f"fsname={_escaped(source)}", "subtype=layrfs", *options.kernel}
    if options.allow_other:
        words.add("allow_other")
    if options.read_only:
        words.add("ro")
    return words


def forget_name(directory: InodeNumber, name: bytes) -> None:
    """Have the kernel ask again what a name stands for. Only while mounted; returns at once."""
    pyfuse3.invalidate_entry_async(pyfuse3.InodeT(directory), pyfuse3.FileNameT(name), ignore_enoent=True)


def forget_bytes(inodes: Sequence[InodeNumber]) -> None:
    """Have the kernel drop what it remembers of files' bytes and attributes. For a thread: it waits for reads."""
    for inode in inodes:
        with contextlib.suppress(OSError):  # the kernel has forgotten it already, or is gone
            pyfuse3.invalidate_inode(pyfuse3.InodeT(inode))


def raise_read_ahead(mountpoint: str, *, kib: int = READ_AHEAD_KIB) -> None:
    """Let the kernel read further ahead; takes root, others keep the kernel's default. Raises ``OSError``."""
    device = _device_of(mountpoint)
    if device is not None:
        with open(f"/sys/class/bdi/{device}/read_ahead_kb", "w", encoding="ascii") as knob:
            knob.write(str(kib))


def _mount(operations: pyfuse3.Operations, mountpoint: str, words: set[str]) -> None:
    try:
        pyfuse3.init(operations, mountpoint, words)
    except RuntimeError as error:
        raise LocalError(f"{mountpoint} could not be mounted; the line above says why.") from error


async def _answer(mountpoint: str, task_status: trio.TaskStatus[None]) -> None:
    """Run the session out of reach of our own cancellation, which stops it in good order instead."""
    answering, ended = trio.CancelScope(shield=True), trio.Event()
    failures: list[Exception] = []

    async def session() -> None:
        try:
            with answering:
                await pyfuse3.main(min_tasks=IDLE_TASKS, max_tasks=MAX_TASKS)
        except Exception as error:  # noqa: BLE001 - raised again below, once everything is in order
            failures.append(error)
        finally:
            ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(session)
        try:
            await _first_answer(mountpoint)
            task_status.started()
            await ended.wait()
        finally:
            with trio.CancelScope(shield=True):
                await _stop(mountpoint, answering, ended)
    for failure in failures:
        raise LocalError(f"{mountpoint} was lost: {failure}") from failure


async def _first_answer(mountpoint: str) -> None:
    """Return when the kernel and we have agreed on the session, which resets the read-ahead."""
    with contextlib.suppress(OSError):
        await trio.to_thread.run_sync(os.statvfs, mountpoint, abandon_on_cancel=True)
        raise_read_ahead(mountpoint)


async def _stop(mountpoint: str, answering: trio.CancelScope, ended: trio.Event) -> None:
    """Have the kernel write back what it holds, stop accepting requests, give those in flight a last chance."""
    if ended.is_set():
        return
    await write_back(mountpoint)
    pyfuse3.terminate()
    answering.deadline = trio.current_time() + STOP_SECONDS
    await ended.wait()


async def write_back(mountpoint: str) -> None:
    """Have the kernel hand over what was written and it still holds, while requests are answered."""
    with trio.move_on_after(STOP_SECONDS):
        await trio.run_process(["sync", "-f", "--", mountpoint], check=False, capture_stderr=True)


def _device_of(mountpoint: str) -> str | None:
    """``major:minor`` of what is mounted there. Asking the mount itself would be waiting for ourselves."""
    device = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split(" ")
            if _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]) == mountpoint:
                device = fields[2]
    return device


def _escaped(source: str) -> str:
    """Commas end an option for libfuse, backslashes escape."""
    return source.replace("\\", "\\\\").replace(",", "\\,")
