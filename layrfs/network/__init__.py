"""Hands on the wire: finding nodes (Kademlia over UDP) and moving pieces (TLS over TCP).

Owns sockets, addresses, who is known and who answers. Must not know files, shards, the catalog or what a piece is for.
"""
