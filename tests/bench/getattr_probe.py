"""A program of its own that asks for a file's attributes all the time, until its standard input ends; then prints
each answer's seconds.

The kernel answers `stat` of a known file itself, in microseconds. `statx` with AT_STATX_FORCE_SYNC makes it ask the
drive each time: that is what somebody waits for who opens a directory the kernel has not seen.
"""

import ctypes
import json
import os
import select
import sys
import time

AT_FDCWD, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS = -100, 0x2000, 0x7FF
PAUSE_SECONDS = 0.004


def main() -> None:
    """`python getattr_probe.py PATH`."""
    libc = ctypes.CDLL(None, use_errno=True)
    path, buffer = os.fsencode(sys.argv[1]), ctypes.create_string_buffer(256)
    taken = []
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        start = time.perf_counter()
        failed = libc.statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, buffer)
        taken.append(time.perf_counter() - start)
        if failed:
            sys.exit(os.strerror(ctypes.get_errno()))
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
