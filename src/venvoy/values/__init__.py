"""How values become what the other side, or the caller, wants."""
