"""TLS 1.3 with both identities proven: contexts, and the node id behind a connection.

OpenSSL insists on certificates that chain to an authority it knows, so every node's is issued by one authority whose
key is public (`layrfs.crypto.identity`). The chain proves nothing; the handshake proves possession of the key in the
certificate, and `peer_node_id` is what a caller compares with whom it meant to reach.
Invariant: no session is ever resumed (no tickets), so every connection has shown a certificate.
"""

from __future__ import annotations

import os
import ssl

from layrfs.crypto.identity import (
    DUMMY_CA_PEM,
    NodeIdentity,
    certificate_pem,
    node_id_of,
    public_key_of_certificate_untrusted,
)
from layrfs.errors import BadMessage
from layrfs.ids import NodeId


def server_context(identity: NodeIdentity) -> ssl.SSLContext:
    """For accepting connections as `identity`; clients without a certificate are refused in the handshake."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.num_tickets = 0
    return context


def client_context(identity: NodeIdentity) -> ssl.SSLContext:
    """For connecting as `identity`. There are no host names to check: the caller checks `peer_node_id`."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, identity)


def peer_node_id(connection: ssl.SSLSocket) -> NodeId:
    """Who is at the other end, after the handshake; BadMessage when the certificate is not a node's."""
    certificate = connection.getpeercert(binary_form=True)
    if certificate is None:
        raise BadMessage("the peer showed no certificate")
    return node_id_of(public_key_of_certificate_untrusted(certificate))


def _context(protocol: int, identity: NodeIdentity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=DUMMY_CA_PEM.decode())
    _load_certificate(context, identity)
    return context


def _load_certificate(context: ssl.SSLContext, identity: NodeIdentity) -> None:
    """OpenSSL reads keys from files only; this one is in memory and gone when the function returns."""
    certificate, key = certificate_pem(identity)
    descriptor = os.memfd_create("layrfs-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, key + certificate)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
