"""What we do for others: keep their pieces, give them back, forget them when their owner says so.

Owns the answers to requests and the bounds on what strangers may have of us. Must not know what pieces contain, whose
volume they belong to, or how they were placed here.
"""
