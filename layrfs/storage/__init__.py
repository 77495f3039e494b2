"""Hands on the local disk: the database, the cache files, the piece store, the key files.

Owns every byte LayrFS keeps on this machine. Must not know who asks (the kernel, a host's peer, a command) nor reach
the network.
"""
