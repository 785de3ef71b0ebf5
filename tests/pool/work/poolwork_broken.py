"""A module whose import fails after it has printed something."""

print("it was going so well")
raise RuntimeError("broken on purpose")
