"""What every command's exit code means: the one table.

====  ==============================================================================================
code  meaning
====  ==============================================================================================
   0  done
   1  this machine failed us (disk, processes), or a check found something wrong
   2  the command line makes no sense
   3  a running drive is needed and there is none (not mounted, or it ended)
   4  nothing can be mounted or unmounted there (missing, not a directory, not empty, mounted, busy)
   5  FUSE is not available (/dev/fuse, fusermount3, permission)
   6  there is no such volume, or there is one already
   7  the recovery phrase or the passphrase is wrong
   8  a file of ours is corrupt, or was written by a newer LayrFS
   9  another process holds the volume or the port
  10  no space left, here or at the hosts
  11  too few hosts can be reached, or they or the ledger failed us; trying again later may help
  12  no such file, or it exists already, or it may not be touched
  13  a requirement is missing and was not installed (``mount.py``)
  14  another machine writes to the volume, or has taken it over
  15  a check found something wrong, and all of it was repaired
  16  the wallet has too little, or the ledger does not take what it was sent
  70  an error inside LayrFS, please report it (``LAYRFS_DEBUG=1`` shows where)
 130  interrupted with Ctrl-C
 141  whoever read our output went away
====  ==============================================================================================
"""

from __future__ import annotations

from layrfs import errors

DONE = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
MOUNTPOINT = 4
NO_FUSE = 5
VOLUME = 6
WRONG_SECRET = 7
UNREADABLE = 8
IN_USE = 9
NO_SPACE = 10
NETWORK = 11
FILE = 12
REQUIREMENT = 13
HELD = 14
REPAIRED = 15
MONEY = 16
INTERNAL = 70
INTERRUPTED = 130
BROKEN_PIPE = 141

_OF_ERROR: dict[type[errors.LayrError], int] = {
    errors.UsageError: USAGE,
    errors.NotRunning: NOT_RUNNING,
    errors.NotSupported: USAGE,
    errors.BadMountpoint: MOUNTPOINT,
    errors.NoFuse: NO_FUSE,
    errors.NoVolume: VOLUME,
    errors.WrongPhrase: WRONG_SECRET,
    errors.WrongPassphrase: WRONG_SECRET,
    errors.CorruptFile: UNREADABLE,
    errors.NewerFormat: UNREADABLE,
    errors.BadMessage: UNREADABLE,
    errors.StateInUse: IN_USE,
    errors.VolumeHeld: HELD,
    errors.Superseded: HELD,
    errors.NoSpace: NO_SPACE,
    errors.Unfunded: MONEY,
    errors.Rejected: MONEY,
    errors.RemoteError: NETWORK,
    errors.FileError: FILE,
    errors.OwnerError: USAGE,
    errors.LayrError: FAILED,
}


def exit_code_of(error: errors.LayrError) -> int:
    """The code of the nearest class in the table."""
    return next(_OF_ERROR[kind] for kind in type(error).__mro__ if kind in _OF_ERROR)
