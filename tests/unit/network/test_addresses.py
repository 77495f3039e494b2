"""HOST:PORT as people read it, and what names stand for."""

from __future__ import annotations

import pytest

from layrfs.config import parse_address
from layrfs.errors import Unreachable
from layrfs.network.addresses import Address, canonical, format_address, is_literal, resolve


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:2", "name.example:3"])
def test_printing_is_the_inverse(text: str) -> None:
    assert format_address(*parse_address(text)) == text
    assert str(Address(*parse_address(text))) == text


def test_canonical_spelling() -> None:
    assert canonical("::FFFF:127.0.0.1") == "127.0.0.1"
    assert canonical("fe80:0::1") == "fe80::1"
    assert not is_literal("localhost")


async def test_literals_resolve_without_a_resolver() -> None:
    assert await resolve(Address("::ffff:9.9.9.9", 5)) == [Address("9.9.9.9", 5)]


async def test_names_resolve() -> None:
    assert Address("127.0.0.1", 5) in await resolve(Address("localhost", 5))


async def test_unknown_names_are_unreachable() -> None:
    with pytest.raises(Unreachable, match=r"cannot be resolved"):
        await resolve(Address("no-such-host.invalid", 5))
