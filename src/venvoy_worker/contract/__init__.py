"""The contract between host and worker: the only part of this package that the host imports.

`frames` and `messages` are the wire format (docs/protocol.md describes every byte), `codec` turns values into
bodies and back, `channel` moves frames over a socket. The same code runs on both ends.
"""
