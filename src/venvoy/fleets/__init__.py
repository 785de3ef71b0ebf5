"""Several pools by name, and the files that describe them."""
