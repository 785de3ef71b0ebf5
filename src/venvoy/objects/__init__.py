"""Objects that live in workers."""
