"""Calls that outlive whoever started them."""
