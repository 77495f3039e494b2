"""Frozen keys of the wallet and its contracts, by our code and by code that shares none of it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from layrfs.crypto import keys, wallet_keys
from layrfs.ids import NodeId
from tests.vectors import reference

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "wallet.json").read_text("utf-8"))
by_phrase = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["phrase"].split()[0])


@by_phrase
def test_wallet_keys(vector: dict[str, Any]) -> None:
    wallet = keys.VolumeKeys.from_phrase(vector["phrase"]).wallet_private
    salts = wallet_keys.salts_key(wallet)
    assert wallet.hex() == vector["walletPrivate"]
    assert wallet_keys.account_of(wallet).hex() == vector["account"]
    assert salts.hex() == vector["saltsKey"]
    for case in vector["escrowPrivate"]:
        private = wallet_keys.escrow_private(wallet, node_of(case), case["number"], case["sequence"])
        assert private.hex() == case["key"]
    for case in vector["instalmentSalt"]:
        salt = wallet_keys.instalment_salt(salts, bytes.fromhex(case["escrow"]), case["instalment"])
        assert salt.hex() == case["salt"]
    for case in vector["setupMemo"]:
        memo = wallet_keys.SetupMemo(
            node_of(case), case["number"], case["start"], case["windowSeconds"], case["instalments"]
        )
        assert memo.hidden(wallet, bytes.fromhex(case["escrow"])).hex() == case["memo"]


@by_phrase
def test_wallet_keys_without_our_code(vector: dict[str, Any]) -> None:
    wallet = reference.slip10(keys.phrase_to_seed(vector["phrase"]), (44, 148, 0))
    salts = reference.hkdf(wallet, b"LayrFS v1 salts of instalments")
    assert (wallet.hex(), salts.hex()) == (vector["walletPrivate"], vector["saltsKey"])
    assert reference.public_key(wallet).hex() == vector["account"]
    for case in vector["escrowPrivate"]:
        numbers = struct.pack("<IQ", case["number"], case["sequence"])
        info = b"LayrFS v1 escrow key" + node_of(case) + numbers
        assert reference.hkdf(wallet, info).hex() == case["key"]
    for case in vector["instalmentSalt"]:
        bound = bytes.fromhex(case["escrow"]) + struct.pack("<H", case["instalment"])
        info = b"LayrFS v1 salt of one instalment" + bound
        assert reference.hkdf(salts, info).hex() == case["salt"]
    for case in vector["setupMemo"]:
        memo = reference.setup_memo(wallet, bytes.fromhex(case["escrow"]), bytes.fromhex(case["memo"]))
        assert memo == (1, node_of(case), case["number"], case["start"], case["windowSeconds"], case["instalments"])


def node_of(case: dict[str, Any]) -> NodeId:
    return NodeId(bytes.fromhex(case["nodeId"]))
