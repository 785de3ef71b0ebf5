"""One worker for one user: leases for a while, named workers for good."""
