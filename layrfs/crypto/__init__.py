"""Labelled primitives: digests, Merkle trees, key derivation, sealing, masking, identities, the key file's box.

Owns every use of a cryptographic library. Must not know files, shards' layout, hosts or the network; no I/O.
"""
