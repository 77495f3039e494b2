"""The wallet's key as the standards publish it, and what contracts derive from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stellar_sdk import Keypair, StrKey

from layrfs.crypto import keys, wallet_keys
from layrfs.crypto.wallet_keys import SetupMemo, revealed_memo
from layrfs.ids import NodeId

BENCH = (
    "bench hurt jump file august wise shallow faculty impulse spring exact slush "
    "thunder author capable act festival slice deposit sauce coconut afford frown better"
)
WALLET = bytes(range(32))
NODE = NodeId(bytes(range(20)))
ESCROW = bytes(range(100, 132))

nodes = st.binary(min_size=20, max_size=20).map(NodeId)
memos = st.builds(
    SetupMemo,
    node_id=nodes,
    number=st.integers(0, 2**16 - 1),
    start=st.integers(0, 2**32 - 1),
    window_seconds=st.integers(0, 2**32 - 1),
    instalments=st.integers(0, 255),
)


@pytest.mark.parametrize(
    ("path", "private"),
    [
        ((), "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7"),
        ((0,), "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3"),
        ((0, 1, 2, 2, 1_000_000_000), "8f94d394a8e8fd6b1bc2f3f49f5c47e385281d5c17e65324b0f62483e37e8793"),
    ],
)
def test_slip_0010_as_published(path: tuple[int, ...], private: str) -> None:
    """SLIP-0010, test vector 1 for Ed25519."""
    assert wallet_keys.slip10_private(bytes(range(16)), path).hex() == private


@pytest.mark.parametrize(
    ("index", "address", "secret"),
    [
        (
            0,
            "GC3MMSXBWHL6CPOAVERSJITX7BH76YU252WGLUOM5CJX3E7UCYZBTPJQ",
            "SAEWIVK3VLNEJ3WEJRZXQGDAS5NVG2BYSYDFRSH4GKVTS5RXNVED5AX7",
        ),
        (
            1,
            "GB3MTYFXPBZBUINVG72XR7AQ6P2I32CYSXWNRKJ2PV5H5C7EAM5YYISO",
            "SBKSABCPDWXDFSZISAVJ5XKVIEWV4M5O3KBRRLSPY3COQI7ZP423FYB4",
        ),
    ],
)
def test_sep_0005_as_published(index: int, address: str, secret: str) -> None:
    """SEP-0005, test 3: the accounts every Stellar wallet finds for these words."""
    private = wallet_keys.slip10_private(keys.phrase_to_seed(BENCH), (44, 148, index))
    assert StrKey.encode_ed25519_secret_seed(private) == secret
    assert StrKey.encode_ed25519_public_key(wallet_keys.account_of(private)) == address


@given(st.binary(min_size=32, max_size=32))
def test_the_ledgers_library_finds_the_same_account(entropy: bytes) -> None:
    phrase = keys.entropy_to_phrase(entropy)
    assert keys.VolumeKeys.from_phrase(phrase).wallet_private == Keypair.from_mnemonic_phrase(phrase).raw_secret_key()


def test_contracts_hosts_and_instalments_all_get_their_own() -> None:
    other = NodeId(b"\1" * 20)
    salts = wallet_keys.salts_key(WALLET)
    found = [WALLET, salts]
    found += [
        wallet_keys.escrow_private(WALLET, node, number, sequence)
        for node in (NODE, other)
        for number in (0, 1)
        for sequence in (5, 6)
    ]
    found += [
        wallet_keys.instalment_salt(salts, escrow, instalment)
        for escrow in (ESCROW, bytes(32))
        for instalment in (0, 1)
    ]
    assert len(set(found)) == len(found)
    assert {len(key) for key in found} == {32}


@given(memos, st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_memo_is_revealed_to_its_owner(memo: SetupMemo, wallet: bytes, escrow: bytes) -> None:
    assert revealed_memo(memo.hidden(wallet, escrow), wallet, escrow) == memo


@given(memos)
def test_a_memo_says_nothing_under_another_key_or_for_another_account(memo: SetupMemo) -> None:
    hidden = memo.hidden(WALLET, ESCROW)
    assert revealed_memo(hidden, bytes(32), ESCROW) != memo
    assert revealed_memo(hidden, WALLET, bytes(32)) != memo


def test_what_is_no_memo_of_ours_is_none() -> None:
    hidden = SetupMemo(NODE, 1, 2, 3, 4).hidden(WALLET, ESCROW)
    assert revealed_memo(bytes([hidden[0] ^ 1]) + hidden[1:], WALLET, ESCROW) is None
    assert revealed_memo(hidden[:-1], WALLET, ESCROW) is None
    assert revealed_memo(b"", WALLET, ESCROW) is None
