"""Promises kept in the background: pieces are renewed while they are needed, and dropped when nothing needs them.

Owns tasks that look after what is on hosts already. Must not know files or the cache.
"""
