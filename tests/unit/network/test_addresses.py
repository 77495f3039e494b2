"""HOST:PORT as people write it."""

from __future__ import annotations

import pytest

from layrfs.errors import Unreachable, UsageError
from layrfs.network.addresses import Address, canonical, format_address, is_literal, parse_address, resolve


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:4455", "127.0.0.1", 4455),
        (" seed.example.org:1 ", "seed.example.org", 1),
        ("localhost:65535", "localhost", 65535),
        ("[2001:DB8::0:1]:80", "2001:db8::1", 80),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1", 80),
        ("under_score.local.:7", "under_score.local.", 7),
    ],
)
def test_good_addresses(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)


@pytest.mark.parametrize(
    ("text", "host"), [("::1", "::1"), ("[::1]", "::1"), ("host", "host"), ("10.0.0.1", "10.0.0.1")]
)
def test_default_port(text: str, host: str) -> None:
    assert parse_address(text, default_port=99) == Address(host, 99)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":80", "host", "host:", "host:0", "host:65536", "host:-1", "host:eighty", "host:٣", "host:80:90"),
        *("1.2.3:80", "1.2.3.999:80", "-bad-:80", "a b:80", "a..b:80", "x" * 300 + ":80", "h:" + "9" * 5000),
        *("[::1:80", "[::1]80", "::1:80:zz", "[]:80"),
    ],
)
def test_bad_addresses_are_one_clear_sentence(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:2", "name.example:3"])
def test_printing_is_the_inverse(text: str) -> None:
    assert format_address(*parse_address(text)) == text
    assert str(parse_address(text)) == text


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
