"""What a volume was, is and becomes on the network: its versions, who may write the next one, how they come back.

Knows hosts only as ``pipeline`` and ``network`` show them, and nothing of front ends or of how a drive is composed.
"""
