"""The workers of a pool as the host sees them."""
