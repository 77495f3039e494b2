"""Files to store: trees and streams that are the same every time for the same seed.

What is written twice in different places must be equal byte for byte, so nothing here asks the clock or the system's
dice.
"""

import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

MIB = 1024 * 1024
POOL_BYTES = 64 * MIB
WORDS = ["return", "self", "length", "offset", "block", "while", "await", "import", "class", "none", "index", "value"]


class Incompressible:
    """A stream of 1 MiB chunks that neither compresses nor repeats: slices of one random pool, shifted every round.

    Making 1 GiB of random bytes would cost more than writing them; a shifted slice is just as new to a block digest.
    """

    def __init__(self, seed: int = 1, pool_bytes: int = POOL_BYTES) -> None:
        self.pool = memoryview(random.Random(seed).randbytes(pool_bytes + MIB))
        self.chunks_per_round = pool_bytes // MIB

    def chunk(self, number: int) -> memoryview:
        """The stream's 1 MiB number `number`; rounds differ by a shift of 4,099 bytes (so blocks never line up)."""
        turn, place = divmod(number, self.chunks_per_round)
        start = place * MIB + turn * 4099 % MIB
        return self.pool[start : start + MIB]

    def chunks(self, total_bytes: int) -> Iterator[memoryview]:
        """Chunks that add up to `total_bytes`."""
        for number in range((total_bytes + MIB - 1) // MIB):
            yield self.chunk(number)[: total_bytes - number * MIB]


def write_stream(path: str, total_bytes: int, seed: int = 1) -> None:
    """Write `total_bytes` of an incompressible stream to `path` with 1 MiB writes."""
    stream = Incompressible(seed, min(POOL_BYTES, max(total_bytes, MIB)))
    with open(path, "wb", buffering=0) as file:
        file.writelines(stream.chunks(total_bytes))


def files_below(root: str) -> list[str]:
    """Paths of all regular files below a directory."""
    paths = (os.path.join(top, name) for top, _, names in os.walk(root) for name in names)
    return [path for path in paths if os.path.isfile(path) and not os.path.islink(path)]


def source_text(dice: random.Random, length: int) -> bytes:
    """Text that compresses about as well as source code does."""
    text = " ".join(dice.choices(WORDS, k=length // 5 + 1))
    return (f"{dice.getrandbits(32):08x} " + text.replace("return", "\n    return"))[:length].encode()


def source_tree(root: str, files: int, *, seed: int = 7, files_per_directory: int = 30) -> None:
    """Build a tree like a checked-out program: nested directories, files of 200 B to 40 KiB, scripts and symlinks."""
    dice = random.Random(seed)
    directories = ["."]
    os.makedirs(root, exist_ok=True)
    for number in range(files):
        if number and number % files_per_directory == 0:
            name = f"part{number // files_per_directory:03d}"
            directories.append(os.path.join(dice.choice(directories[-4:]), name))
            os.mkdir(os.path.join(root, directories[-1]))
        path = os.path.join(root, directories[-1], f"module_{number:05d}.py")
        length = min(40_960, 200 + int(dice.expovariate(1 / 5_000)))
        Path(path).write_bytes(source_text(dice, length))
        if number % 20 == 0:
            os.chmod(path, 0o755)  # noqa: S103 - as a program's tree has them
        if number % 50 == 0:
            os.symlink(os.path.basename(path), f"{path}.link")


def decorate_tree(root: str) -> None:
    """Add what -H, -A and -X are about: hard links, odd modes and times, attributes, empty and sparse files."""
    Path(root, "empty").touch()
    Path(root, "one").write_bytes(b"x")
    os.link(os.path.join(root, "one"), os.path.join(root, "two"))
    os.symlink("/nowhere/at/all", os.path.join(root, "dangling"))
    os.mkfifo(os.path.join(root, "pipe"))
    with open(os.path.join(root, "sparse"), "wb") as file:
        file.seek(9 * MIB + 123)
        file.write(b"the end")
        file.truncate(20 * MIB)
    os.setxattr(os.path.join(root, "one"), "user.colour", b"gr\x00n")
    os.utime(os.path.join(root, "one"), ns=(1_000_000_000_123_456_789, 1_234_567_890_987_654_321))
    os.mkdir(os.path.join(root, "sealed"), 0o2750)
    os.chmod(os.path.join(root, "empty"), 0o4711)  # noqa: S103 - rsync has to keep it


def small_files(root: str, count: int, *, length: int = 4096, seed: int = 3) -> list[tuple[str, bytes]]:
    """Paths and incompressible contents of `count` small files below `root`; their directories, of 100, are made."""
    dice = random.Random(seed)
    files = []
    for number in range(count):
        directory = os.path.join(root, f"d{number // 100:03d}")
        os.makedirs(directory, exist_ok=True)
        files.append((os.path.join(directory, f"f{number:05d}"), dice.randbytes(length)))
    return files


def make_tar(tree: str, archive: str) -> None:
    """Pack `tree` into an uncompressed tar."""
    with tarfile.open(archive, "w") as tar:
        tar.add(tree, arcname=os.path.basename(tree))
