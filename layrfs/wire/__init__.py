"""Bytes <-> messages: where hostile input ends.

Owns framing, msgpack and the shapes of messages. Must not know sockets, clocks or what a message is for; whatever a
stranger sends, only `*_untrusted` functions look at it, and they raise BadMessage or nothing else.
"""
