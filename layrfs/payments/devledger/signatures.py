"""Whose signatures are on a transaction, counted as Stellar counts them. Pure.

Owns the weighing of signatures against signers. Must not know what they are needed for. Invariant: a signature counts
for somebody or is seen to be one too many; a check stops at the weight it needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from layrfs.crypto.identity import verify_signature
from layrfs.payments.devledger.state import Signer
from layrfs.payments.devledger.transactions import Signature

_HINT_BYTES = 4
_MOST_WEIGHT = 255


class Signatures:
    """The signatures on one hash, and which of them something needed."""

    def __init__(self, signed: bytes, signatures: Sequence[Signature]) -> None:
        self._signed = signed
        self._signatures = signatures
        self._used: set[int] = set()

    def weigh(self, signers: Sequence[Signer], needed: int) -> bool:
        """Whether the signers among these weigh what is needed. At least one has to be there, also when 0 is."""
        weight = 0
        for signer in signers:
            if signer.key.kind == "preauth_tx" and signer.key.key == self._signed:
                weight += min(signer.weight, _MOST_WEIGHT)
                if weight >= needed:
                    return True
        for kind, matches in (("sha256_hash", self._is_preimage), ("ed25519_public_key", self._is_signature)):
            ours = [signer for signer in signers if signer.key.kind == kind]
            weight, enough = self._add(ours, matches, weight, needed)
            if enough:
                return True
        return False

    def are_all_used(self) -> bool:
        """Whether there is none that nothing needed."""
        return len(self._used) == len(self._signatures)

    def _add(
        self, signers: list[Signer], matches: Callable[[Signature, bytes], bool], weight: int, needed: int
    ) -> tuple[int, bool]:
        for index, signature in enumerate(self._signatures):
            found = next((each for each in signers if matches(signature, each.key.key)), None)
            if found is not None:
                self._used.add(index)
                weight += min(found.weight, _MOST_WEIGHT)
                if weight >= needed:
                    return weight, True
                signers.remove(found)
        return weight, False

    def _is_preimage(self, signature: Signature, key: bytes) -> bool:
        return signature.hint == key[-_HINT_BYTES:] and hashlib.sha256(signature.signature).digest() == key

    def _is_signature(self, signature: Signature, key: bytes) -> bool:
        return signature.hint == key[-_HINT_BYTES:] and verify_signature(key, self._signed, signature.signature)
