"""What bytes in a cache file are that no journal speaks for. Pure.

Either hosts have the same (they are a copy), or they are newer (written here, never sent), or they are what an
interrupted fetch or a power cut left of the same: then some pages are zeros and all others are what hosts have.
"""

from __future__ import annotations

from typing import Literal

Verdict = Literal["clean", "newer", "remnant", "unclear"]
PAGE_BYTES = 4096


def first_look(*, has_data: bool, is_stored: bool, is_equal: bool, said_dirty: bool) -> Verdict | None:
    """Without asking hosts; None for zeros that mean nothing.

    ``is_equal``: the digest of what hosts have is that of these bytes; ``said_dirty``: something readable of the
    journal, or the published list of unsent blocks, says that they are newer.
    """
    if said_dirty:
        return "newer"
    if is_equal:
        return "clean"
    if not has_data:
        return None
    return "unclear" if is_stored else "newer"


def second_look(here: bytes, on_hosts: bytes) -> Verdict:
    """The same with what hosts have at hand; both without zeros at their ends."""
    if here == on_hosts:
        return "clean"
    for at in range(0, max(len(here), len(on_hosts)), PAGE_BYTES):
        page = here[at : at + PAGE_BYTES].rstrip(b"\0")
        if page and page != on_hosts[at : at + PAGE_BYTES].rstrip(b"\0"):
            return "newer"
    return "remnant"
