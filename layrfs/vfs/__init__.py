"""A file system that has never heard of FUSE.

Owns what POSIX says about inodes, names, attributes and bytes, and the cache that answers from this machine. Must not
know errnos, kernels or hosts: errors are the words of ``layrfs.errors``, blocks come and go through the pipeline.
"""
