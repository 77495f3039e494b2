"""Receiving requests without ever waiting in the kernel for one: what pyfuse3's own loop leaves out.

A program that is killed takes back the request it waits for, if we have not read it yet. When that happens between
poll's word that there is one and our read, a blocking read waits for the next request of anybody, with the whole
process, for pyfuse3 holds the GIL meanwhile: no upload, no answer to hosts, no command goes on, for minutes on a drive
nobody uses (libfuse issue 1194). So the device is made non-blocking, and a receiver that finds nothing polls again.

Owns the device's mode and that one exception. Must not know requests.
"""

from __future__ import annotations

import errno
import os

import pyfuse3
import trio

_DEVICE = "/dev/fuse"
_RECEIVER = "_session_loop"
"""pyfuse3's name for the task that receives requests and answers them; it looks it up whenever it starts one."""

_receive = vars(pyfuse3)[_RECEIVER]


def never_wait() -> None:
    """Have this process' sessions never block in a read. After `pyfuse3.init`, before `pyfuse3.main`."""
    for device in devices():
        os.set_blocking(device, False)
    vars(pyfuse3)[_RECEIVER] = _receive_patiently


def devices() -> list[int]:
    """This process' descriptors of the FUSE device: pyfuse3 does not tell which is its own."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == _DEVICE:
                found.append(int(name))
        except FileNotFoundError:  # the descriptor that has listed them
            continue
    return found


async def _receive_patiently(nursery: trio.Nursery, idle_tasks: int, most_tasks: int) -> None:
    """One receiver. It starts anew when a request has gone, and loses its buffer: as much as it has used."""
    while True:
        try:
            await _receive(nursery, idle_tasks, most_tasks)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
        else:
            return
