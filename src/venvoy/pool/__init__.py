"""The workers of one environment: who serves whom, when to start, what to do when one ends."""
