"""Identities: ids, signatures, and certificates that TLS takes and nobody else's bytes pass for."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto import identity
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage

ALICE, BOB = NodeIdentity.from_private(b"\1" * 32), NodeIdentity.from_private(b"\2" * 32)


def test_ed25519_as_published() -> None:
    """RFC 8032, section 7.1, test 1."""
    node = NodeIdentity.from_private(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert node.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert node.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )


def test_generated_identities_differ_and_come_back_from_their_private_bytes() -> None:
    first, second = NodeIdentity.generate(), NodeIdentity.generate()
    assert first.node_id != second.node_id
    assert NodeIdentity.from_private(first.private).public_key == first.public_key
    assert len(first.node_id) == 20
    assert first.private.hex() not in repr(first)


def test_private_bytes_of_the_wrong_length() -> None:
    with pytest.raises(ValueError, match="32"):
        NodeIdentity.from_private(b"short")


def test_signatures() -> None:
    signature = ALICE.sign(b"message")
    assert identity.verify_signature(ALICE.public_key, b"message", signature)
    assert not identity.verify_signature(ALICE.public_key, b"massage", signature)
    assert not identity.verify_signature(BOB.public_key, b"message", signature)


@given(st.binary(max_size=40), st.binary(max_size=70))
def test_keys_and_signatures_of_any_shape_are_just_wrong(key: bytes, signature: bytes) -> None:
    assert not identity.verify_signature(key, b"message", signature)


def test_a_certificate_is_constant_and_gives_back_its_key() -> None:
    certificate, key = identity.certificate_pem(ALICE)
    assert (certificate, key) == identity.certificate_pem(ALICE)
    der = ssl.PEM_cert_to_DER_cert(certificate.decode())
    assert identity.public_key_of_certificate_untrusted(der) == ALICE.public_key
    assert len(der) < identity.CERTIFICATE_LIMIT_BYTES


def _context(side: int, node: NodeIdentity, directory: str) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=identity.DUMMY_CA_PEM.decode())
    path = f"{directory}/{node.node_id.hex()}.pem"
    with open(path, "wb") as file:
        file.write(b"".join(identity.certificate_pem(node)))
    context.load_cert_chain(path)
    return context


def test_tls_with_both_certificates_required(tmp_path: object) -> None:
    """A handshake in memory under OpenSSL's strict rules; each side learns the other's key."""
    ends = [(ssl.MemoryBIO(), ssl.MemoryBIO()), (ssl.MemoryBIO(), ssl.MemoryBIO())]
    client = _context(ssl.PROTOCOL_TLS_CLIENT, ALICE, str(tmp_path)).wrap_bio(*ends[0])
    server = _context(ssl.PROTOCOL_TLS_SERVER, BOB, str(tmp_path)).wrap_bio(*ends[1], server_side=True)
    for _ in range(4):
        for side, (_, outgoing), (incoming, _) in [(client, ends[0], ends[1]), (server, ends[1], ends[0])]:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            incoming.write(outgoing.read())
    for side, peer in [(client, BOB), (server, ALICE)]:
        assert side.version() == "TLSv1.3"
        der = side.getpeercert(binary_form=True)
        assert der is not None
        assert identity.public_key_of_certificate_untrusted(der) == peer.public_key


@given(st.binary(max_size=300))
def test_hostile_bytes_are_no_certificate(data: bytes) -> None:
    with pytest.raises(BadMessage):
        identity.public_key_of_certificate_untrusted(data)


@given(st.data())
def test_a_damaged_certificate_is_read_or_refused(data: st.DataObject) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(identity.certificate_pem(ALICE)[0].decode()))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadMessage):
        assert len(identity.public_key_of_certificate_untrusted(bytes(der))) == 32


def test_a_large_certificate_is_not_even_parsed() -> None:
    with pytest.raises(BadMessage, match="too large"):
        identity.public_key_of_certificate_untrusted(bytes(identity.CERTIFICATE_LIMIT_BYTES + 1))


def test_another_kind_of_key_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    template = x509.load_pem_x509_certificate(identity.certificate_pem(ALICE)[0])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
        .sign(key, SHA256())
    )
    with pytest.raises(BadMessage, match="Ed25519"):
        identity.public_key_of_certificate_untrusted(certificate.public_bytes(Encoding.DER))
