"""Attempts of a call at deployments: which is asked next, its reservation, sending it, and what its failure means."""
