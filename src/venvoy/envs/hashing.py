"""What keys are made with."""

from __future__ import annotations

# Part of every key: raise it when a folder built by an earlier venvoy must not be used any more.
FORMAT_VERSION = 2


def content_hash(*parts: object) -> str:
    """Return 32 hex digits that stand for the parts, by their `repr`."""
    return bytes_hash(repr(parts).encode("utf-8", "surrogateescape"))


def bytes_hash(data: bytes) -> str:
    """Return 32 hex digits that stand for some bytes."""
    try:
        from _blake2 import blake2b  # hashlib would load OpenSSL as well: 5 ms on every cached start
    except ImportError:
        from hashlib import blake2b
    return blake2b(data, digest_size=16).hexdigest()
