"""Who still knows an inode: the one question whether a file without a name may go.

Owns references (the kernel's, above all), opens, and the set of inodes without a name. Must not delete anything: it
says when. The invariant: an inode is said to be done with exactly once, when it has no name, no reference and no open.
"""

from __future__ import annotations

from array import array

from layrfs.ids import InodeNumber

PAGE = 4096


class References:
    """How often the kernel knows each inode: 4 bytes per inode in pages, where a dictionary would take 100."""

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}
        self._used: dict[int, int] = {}

    def add(self, inode: int) -> None:
        """One more reference."""
        page_number, index = divmod(inode, PAGE)
        page = self._pages.get(page_number)
        if page is None:
            page = self._pages[page_number] = array("I", bytes(4 * PAGE))
            self._used[page_number] = 0
        if not page[index]:
            self._used[page_number] += 1
        page[index] += 1

    def drop(self, inode: int, count: int) -> int:
        """``count`` references fewer; how many are left."""
        page_number, index = divmod(inode, PAGE)
        page = self._pages.get(page_number)
        if page is None or not page[index]:
            return 0
        left = max(0, page[index] - count)
        page[index] = left
        if not left:
            self._used[page_number] -= 1
            if not self._used[page_number]:
                del self._pages[page_number], self._used[page_number]
        return left

    def count(self, inode: int) -> int:
        """How many references there are."""
        page = self._pages.get(inode // PAGE)
        return 0 if page is None else page[inode % PAGE]


class Lifetimes:
    """Plain bookkeeping; the methods that answer a bool say whether the inode is to be deleted now."""

    def __init__(self) -> None:
        self._references = References()
        self._opens: dict[InodeNumber, int] = {}
        self._nameless: set[InodeNumber] = set()

    def refer(self, number: InodeNumber) -> None:
        """One more reference."""
        self._references.add(number)

    def forget(self, number: InodeNumber, count: int) -> bool:
        """``count`` references fewer."""
        return not self._references.drop(number, count) and self._is_over(number)

    def open(self, number: InodeNumber) -> None:
        """One more open."""
        self._opens[number] = self._opens.get(number, 0) + 1

    def close(self, number: InodeNumber) -> bool:
        """One open fewer."""
        left = self._opens[number] - 1
        if left:
            self._opens[number] = left
            return False
        del self._opens[number]
        return self._is_over(number)

    def is_open(self, number: InodeNumber) -> bool:
        """Whether there is an open that was not closed."""
        return number in self._opens

    def lose_name(self, number: InodeNumber) -> bool:
        """The last name is gone."""
        self._nameless.add(number)
        return self._is_over(number)

    def end(self) -> list[InodeNumber]:
        """Everything without a name, whoever knows it: the mount is over."""
        nameless, self._nameless = list(self._nameless), set()
        return nameless

    def _is_over(self, number: InodeNumber) -> bool:
        if number not in self._nameless or number in self._opens or self._references.count(number):
            return False
        self._nameless.discard(number)
        return True
