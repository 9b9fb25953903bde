"""Orders: calls of a batch that a provider makes at its own batch endpoint."""
