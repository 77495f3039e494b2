"""Frozen hashes of every transaction of a contract; npm's @stellar/stellar-base, where it is at hand, has the same.

To have it checked: `npm install @stellar/stellar-base` somewhere, and NODE_PATH=somewhere/node_modules.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from layrfs.crypto import instalments
from layrfs.crypto.wallet_keys import account_of
from layrfs.model.contracts import Lock, Terms, terms_untrusted
from layrfs.payments import envelopes
from layrfs.payments.envelopes import Envelope
from tests.vectors import reference

HERE = Path(__file__).parent
VECTORS: list[dict[str, Any]] = json.loads((HERE / "envelopes.json").read_text("utf-8"))
each_contract = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])


def rebuilt(terms: Terms, said: dict[str, Any]) -> Envelope:
    match said["kind"]:
        case "setup":
            return envelopes.setup(terms)
        case "claim":
            lock = Lock(said["stroops"], bytes.fromhex(said["lock"]))
            return envelopes.claim(terms, said["instalment"], lock)
        case "refund":
            return envelopes.refund(terms)
        case "settle":
            return envelopes.settle(
                terms, host_stroops=said["stroops"], sequence_number=said["sequence"], last_second=said["lastSecond"]
            )
        case _:
            return envelopes.payment(
                terms.network,
                terms.owner,
                terms.escrow,
                stroops=said["stroops"],
                sequence_number=said["sequence"],
                last_second=said["lastSecond"],
            )


@each_contract
def test_terms_and_every_transaction_of_them(vector: dict[str, Any]) -> None:
    terms = terms_untrusted(bytes.fromhex(vector["encoded"]))
    fields = {name: value.hex() if isinstance(value, bytes) else value for name, value in vector_fields(terms).items()}
    assert fields == vector["terms"]
    assert terms.contract_id.hex() == vector["contractId"]
    private = {name: bytes.fromhex(key) for name, key in vector["private"].items()}
    for said in vector["envelopes"]:
        envelope = rebuilt(terms, said)
        signatures = {account_of(private[name]): envelope.sign(private[name]) for name in said["signers"]}
        answers = [bytes.fromhex(said["answer"])] if "answer" in said else []
        assert envelope.hash.hex() == said["hash"]
        assert envelope.xdr(signatures, answers) == said["xdr"]


def vector_fields(terms: Terms) -> dict[str, Any]:
    return {name: getattr(terms, name) for name in terms.__struct_fields__}


@each_contract
def test_answers_with_and_without_our_code(vector: dict[str, Any]) -> None:
    contract = bytes.fromhex(vector["contractId"])
    for said in [each for each in vector["envelopes"] if each["kind"] == "claim"]:
        salt, digests = bytes.fromhex(said["salt"]), [bytes.fromhex(each) for each in said["digests"]]
        pieces = [digests[:2], digests[2:]]
        batches = [instalments.batch_digest(salt, each) for each in pieces]
        found = instalments.answer(salt, contract, said["instalment"], batches)
        assert [each.hex() for each in batches] == said["batches"]
        assert found.hex() == said["answer"]
        assert instalments.lock_hash(found).hex() == said["lock"]
        assert reference.instalment_answer(salt, contract, said["instalment"], pieces) == found


@each_contract
def test_stellar_base_decodes_the_same(vector: dict[str, Any]) -> None:
    if not _has_stellar_base():
        pytest.skip("needs node, and @stellar/stellar-base in NODE_PATH")
    asked = {"passphrase": vector["passphrase"], "envelopes": [each["xdr"] for each in vector["envelopes"]]}
    command = ["node", str(HERE / "stellar_base.cjs")]
    run = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    expected = [{"hash": each["hash"], "same": True, **each["decoded"]} for each in vector["envelopes"]]
    assert json.loads(run.stdout) == expected


def _has_stellar_base() -> bool:
    node = shutil.which("node")
    return (
        node is not None
        and not subprocess.run(
            [node, "--eval", "require.resolve('@stellar/stellar-base')"], capture_output=True, check=False
        ).returncode
    )
