"""Money: the only door to stellar_sdk. Transactions as pure values, the ledger's client, a ledger for development.

Owns what goes onto a ledger and what is read from it. Must not know shards, hosts on the network, or when to pay whom.
"""
