"""The nouns of LayrFS and their bytes: redundancy, shards, manifests, records, status.

Frozen values with their own validation and encodings. Must not know how anything is done: no I/O, clock or dice.
"""
