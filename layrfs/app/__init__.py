"""Composition roots: the drive, the host, the embedded network.

Builds every object, owns the top nursery and the order of shutdown. Decides nothing that a test would want to decide
differently.
"""
