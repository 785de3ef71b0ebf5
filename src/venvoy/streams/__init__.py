"""Many values on one call: streams of results, and iterators among its arguments."""
