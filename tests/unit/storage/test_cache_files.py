from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from layrfs.errors import LocalError, NoSpace
from layrfs.ids import InodeNumber
from layrfs.storage.cache_files import CacheFiles, failed

ONE = InodeNumber(0x1234)


@pytest.fixture
def files(tmp_path: Path) -> CacheFiles:
    return CacheFiles(f"{tmp_path}/cache", open_files=3)


def blocks_on_disk(path: str) -> int:
    return os.stat(path).st_blocks


def test_path_has_4096_inodes_to_a_directory(files: CacheFiles) -> None:
    assert files.path(ONE) == f"{files.directory}/1/1234"


def test_what_was_never_written_reads_as_zeros(files: CacheFiles) -> None:
    file = files.file(ONE)
    assert file.read(5, 10) == bytes(10)
    assert not os.path.exists(file.path)
    file.write(b"abc", 4)
    assert file.read(0, 10) == b"\0\0\0\0abc\0\0\0"
    assert file.size() == files.size(ONE) == 7


def test_a_read_that_the_kernel_answers_in_pieces_is_whole(files: CacheFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    file, real = files.file(ONE), os.pread
    file.write(bytes(range(250)) * 4, 0)
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 300), offset))
    assert file.read(100, 1000) == (bytes(range(250)) * 4)[100:].ljust(1000, b"\0")


def test_punched_range_is_zeros_and_takes_no_room(files: CacheFiles) -> None:
    file = files.file(ONE)
    file.write(b"x" * 300_000, 0)
    before = blocks_on_disk(file.path)
    files.punch(ONE, [(65536, 131072)])
    assert file.read(0, 300_000) == b"x" * 65536 + bytes(131072) + b"x" * (300_000 - 196608)
    assert blocks_on_disk(file.path) <= before - 131072 // 512
    assert file.size() == 300_000


def test_punching_beyond_the_end_or_nothing_changes_nothing(files: CacheFiles) -> None:
    files.punch(ONE, [(0, 4096)])
    file = files.file(ONE)
    file.write(b"x", 0)
    files.punch(ONE, [(4096, 4096), (0, 0)])
    assert file.read(0, 2) == b"x\0"
    assert file.size() == 1


def test_cut_only_shortens(files: CacheFiles) -> None:
    file = files.file(ONE)
    file.write(b"abcdef", 0)
    file.cut(100)
    assert file.size() == 6
    file.cut(2)
    assert file.read(0, 6) == b"ab\0\0\0\0"
    files.cut(InodeNumber(77), 0)


def test_data_ranges_skip_holes(files: CacheFiles) -> None:
    file = files.file(ONE)
    assert list(file.data_ranges()) == []
    file.write(b"x" * 4096, 1 << 20)
    file.write(b"x" * 4096, 8 << 20)
    assert list(file.data_ranges()) == [(1 << 20, (1 << 20) + 4096), (8 << 20, (8 << 20) + 4096)]


def test_few_descriptors_serve_many_files(files: CacheFiles) -> None:
    handles = [files.file(InodeNumber(number)) for number in range(1, 9)]
    for handle in handles:
        handle.write(str(handle.inode).encode(), 0)
    assert sum(handle.fd >= 0 for handle in handles) == 3
    assert [handle.read(0, 1) for handle in handles] == [str(handle.inode).encode() for handle in handles]
    for handle in handles:
        handle.close()
        handle.close()
        assert handle.fd == -1


def test_removed_file_is_zeros_again(files: CacheFiles) -> None:
    file = files.file(ONE)
    file.write(b"abc", 0)
    file.close()
    files.remove(ONE)
    files.remove(ONE)
    assert file.read(0, 3) == bytes(3)
    assert files.changed_seconds(ONE) is None


def test_groups_and_inodes_list_what_is_there(files: CacheFiles) -> None:
    for number in (5, 6, 4096, 999999):
        files.file(InodeNumber(number)).write(b"x", 0)
    Path(f"{files.directory}/notes").write_text("not ours")
    assert files.groups() == [0, 1, 999999 // 4096]
    assert files.inodes(0) == [5, 6]


def test_sync_returns_for_files_that_exist_and_that_do_not(files: CacheFiles) -> None:
    files.file(ONE).write(b"x", 0)
    files.sync(ONE)
    files.sync(InodeNumber(99))
    files.sync_all()


def test_full_disk_is_no_space_and_the_rest_local(files: CacheFiles) -> None:
    assert isinstance(failed(OSError(errno.ENOSPC, "full"), "p"), NoSpace)
    assert not isinstance(failed(OSError(errno.EIO, "bad"), "p"), NoSpace)
    Path(f"{files.directory}/1").write_text("in the way")
    with pytest.raises(LocalError):
        files.file(ONE).write(b"x", 0)


def test_facts_of_a_group_are_those_of_its_files(files: CacheFiles) -> None:
    for inode, length in ((5, 10), (6, 0), (4097, 7)):
        file = files.file(InodeNumber(inode))
        file.write(b"x" * length, 0)
        file.close()
    os.utime(files.path(InodeNumber(6)), (1000, 1000))
    facts = files.facts(0)
    assert {inode: fact.size for inode, fact in facts.items()} == {5: 10, 6: 0}
    assert facts[InodeNumber(6)].changed == 1000
    assert facts[InodeNumber(5)].changed == files.changed_seconds(InodeNumber(5))
