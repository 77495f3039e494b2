"""The only door to the kernel.

Owns the translation of FUSE requests to ``layrfs.vfs`` and of our errors to errnos. Must not decide anything a file
system has to decide.
"""
