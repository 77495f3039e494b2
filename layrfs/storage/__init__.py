"""Hands on the local disk: database, piece store, cache files, key ring.

Owns every file of ours and in which order it becomes durable. Must not know the network, FUSE, or why anything is
stored.
"""
