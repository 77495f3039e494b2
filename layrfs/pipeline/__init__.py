"""The way between blocks of files and pieces on hosts: sealing, packing, placing, sending, fetching.

It owns the worker processes and what is said to them. It must not know FUSE, what an inode is, or the database: who
calls hands it paths and numbers, and a function that finds content by its digest.
"""
