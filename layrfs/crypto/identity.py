"""A node's identity: an Ed25519 key pair, the id hashed from it, and the certificate that carries it through TLS.

TLS needs certificates to be issued by somebody. Everybody's are issued by one certificate authority whose private key
is a published constant, so that chain says nothing and each side pins the certificate's public key to the node id it
expects. The possession of the node's key is what the TLS handshake proves.
"""

from __future__ import annotations

import datetime
import hashlib
from functools import cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from layrfs.crypto import labels
from layrfs.crypto.digests import labelled
from layrfs.errors import BadMessage
from layrfs.ids import NODE_ID_BYTES, NodeId

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
CERTIFICATE_LIMIT_BYTES = 4096

# Validity is not how trust ends here, and the clocks of laptops are wrong: no date ever fails.
_NOT_BEFORE = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "LayrFS public dummy CA")])
_SERIAL_BYTES = 16


class NodeIdentity:
    """The key pair of one node. Random, per machine, unrelated to any volume's phrase."""

    __slots__ = ("_key", "node_id", "private", "public_key")

    def __init__(self, private: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.private = private
        self.public_key = self._key.public_key().public_bytes_raw()
        self.node_id = node_id_of(self.public_key)

    @classmethod
    def generate(cls) -> NodeIdentity:
        """A fresh identity from the system's random source."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_private(cls, private: bytes) -> NodeIdentity:
        """From the 32 private bytes; ValueError for any other length."""
        return cls(private)

    def sign(self, message: bytes) -> bytes:
        """64 bytes. Sign `labels.signed_bytes(purpose, …)`, never a stranger's bytes as they are."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"NodeIdentity({self.node_id.hex()})"


def node_id_of(public_key: bytes) -> NodeId:
    """The Kademlia id of the node with this public key."""
    return NodeId(hashlib.sha256(public_key).digest()[:NODE_ID_BYTES])


def verify_signature(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature is this key's; False for keys and signatures of the wrong shape."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def certificate_pem(identity: NodeIdentity) -> tuple[bytes, bytes]:
    """(certificate, private key) as PEM, for `ssl.SSLContext.load_cert_chain`. Always the same for one identity."""
    key = Ed25519PrivateKey.from_private_bytes(identity.private)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.node_id.hex())])
    certificate = _builder(name, key.public_key()).add_extension(_LEAF_CONSTRAINTS, critical=True)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.sign(_dummy_ca_key(), None).public_bytes(Encoding.PEM), key_pem


def public_key_of_certificate_untrusted(der: bytes) -> bytes:
    """The 32-byte Ed25519 key inside a peer's certificate; BadMessage for anything else."""
    if len(der) > CERTIFICATE_LIMIT_BYTES:
        raise BadMessage("the peer's certificate is too large")
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise BadMessage("the peer's certificate cannot be read") from None
    if not isinstance(key, Ed25519PublicKey):
        raise BadMessage("the peer's certificate does not hold an Ed25519 key")
    return key.public_bytes_raw()


_LEAF_CONSTRAINTS = x509.BasicConstraints(ca=False, path_length=None)


@cache
def _dummy_ca_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(labelled(labels.DUMMY_CA_KEY, b""))


def _builder(subject: x509.Name, key: Ed25519PublicKey) -> x509.CertificateBuilder:
    """What the authority's own certificate and the nodes' have in common (RFC 5280's mandatory extensions)."""
    public = key.public_bytes_raw()
    authority = _dummy_ca_key().public_key()
    # Positive, at most 20 bytes, and a function of the key: two certificates never share a serial.
    serial = int.from_bytes(labelled(labels.CERTIFICATE_SERIAL, public)[:_SERIAL_BYTES], "big") | 1
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_CA_NAME)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
    )


def _dummy_ca_pem() -> bytes:
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = _builder(_CA_NAME, _dummy_ca_key().public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(usage, critical=True).sign(_dummy_ca_key(), None).public_bytes(Encoding.PEM)


DUMMY_CA_PEM = _dummy_ca_pem()
"""The one trust anchor of every TLS context. Its key is public: it proves nothing, on purpose."""
