"""What only ever runs in the child."""
