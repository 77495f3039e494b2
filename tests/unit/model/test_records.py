"""Node records: nobody but the node can make one, for longer than a while, or point it at nonsense."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage
from layrfs.model import records
from layrfs.model.records import NodeRecord, verified_untrusted
from layrfs.wire.codec import encode

NOW = 1_800_000_000
ALICE, MALLORY = NodeIdentity.from_private(b"\1" * 32), NodeIdentity.from_private(b"\2" * 32)


def record(**changes: object) -> NodeRecord:
    fields: dict[str, object] = {
        "host": "192.0.2.7",
        "udp_port": 4000,
        "tcp_port": 4000,
        "free_bytes": 10**12,
        "expires": NOW + 3600,
    } | changes
    return NodeRecord.sign(ALICE, **fields)  # type: ignore[arg-type]


@given(
    st.sampled_from(["192.0.2.7", "127.0.0.1", "2001:db8::1", "::1"]), st.integers(0, 65535), st.integers(0, 2**63 - 1)
)
def test_a_signed_record_is_believed_as_struct_and_as_bytes(host: str, tcp_port: int, free_bytes: int) -> None:
    ours = record(host=host, tcp_port=tcp_port, free_bytes=free_bytes)
    assert verified_untrusted(ours, NOW) is ours
    assert verified_untrusted(ours.to_bytes(), NOW + 0.5) == ours
    assert ours.node_id == ALICE.node_id
    assert (ours.address.node_id, ours.address.ip, ours.address.port) == (ALICE.node_id, host, tcp_port)
    assert len(ours.to_bytes()) < records.RECORD_LIMIT_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"public_key": MALLORY.public_key},
        {"host": "192.0.2.8"},
        {"udp_port": 4001},
        {"tcp_port": 4001},
        {"free_bytes": 1},
        {"price": 1},
        {"leaving": True},
        {"version": 2},
        {"expires": NOW + 3601},
        {"signature": bytes(64)},
    ],
)
def test_no_field_can_be_changed(change: dict[str, object]) -> None:
    assert set(change) <= set(NodeRecord.__struct_fields__)
    with pytest.raises(BadMessage, match="signed"):
        verified_untrusted(msgspec.structs.replace(record(), **change), NOW)


def test_every_field_is_covered_by_the_test_above() -> None:
    assert len(NodeRecord.__struct_fields__) == 10


@pytest.mark.parametrize("expires", [NOW, NOW - 1, 0, NOW + records.MAX_LIFETIME_SECONDS + 1, 2**63 - 1])
def test_out_of_date_and_too_far_ahead(expires: int) -> None:
    with pytest.raises(BadMessage, match="out of date"):
        verified_untrusted(record(expires=expires), NOW)


def test_a_normal_lifetime_is_well_within_the_limit() -> None:
    assert verified_untrusted(record(expires=NOW + records.LIFETIME_SECONDS), NOW - 3600)
    assert verified_untrusted(record(expires=NOW + records.MAX_LIFETIME_SECONDS), NOW)
    assert verified_untrusted(record(expires=NOW + 1), NOW)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.org",
        "192.0.2.07",
        "192.0.2.7 ",
        "2001:DB8::1",
        "2001:db8:0::1",
        "0.0.0.0",  # noqa: S104
        "::",
        "224.0.0.1",
        "ff02::1",
        "fe80::1%eth0",
        "192.0.2.7/24",
        "\u0661.2.3.4",
    ],
)
def test_only_canonical_addresses_of_one_node(host: str) -> None:
    """Even when the node itself signs it."""
    unsigned = msgspec.structs.replace(record(), host=host)
    signed = msgspec.structs.replace(unsigned, signature=ALICE.sign(records._signed_part(unsigned)))
    with pytest.raises(BadMessage, match="address"):
        verified_untrusted(signed, NOW)


def test_sign_spells_addresses_canonically_and_refuses_names() -> None:
    assert record(host="2001:DB8:0::1").host == "2001:db8::1"
    with pytest.raises(ValueError, match="example"):
        record(host="example.org")


@given(st.binary(max_size=300))
def test_hostile_bytes(data: bytes) -> None:
    with pytest.raises(BadMessage):
        verified_untrusted(data, NOW)


@given(st.data())
def test_damaged_bytes(data: st.DataObject) -> None:
    original = record()
    damaged = bytearray(original.to_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadMessage):
        verified_untrusted(bytes(damaged), NOW)


def test_a_record_has_no_other_spelling() -> None:
    ours = record()
    fields = list(msgspec.structs.astuple(ours))
    for other in (msgspec.msgpack.encode([*fields, 1]), msgspec.msgpack.encode(fields[:-1]), encode(ours) + b"\0"):
        with pytest.raises(BadMessage):
            verified_untrusted(other, NOW)
