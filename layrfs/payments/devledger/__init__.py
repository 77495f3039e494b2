"""A ledger for development: the rules of Stellar's for the few operations that payments need, on one machine.

Owns accounts, rules, history and the part of Horizon's interface that serves them. Must not know contracts, owners or
hosts. Invariant: lumens in accounts and in the fee pool always sum up to those that it began with.
"""
