"""Deployments: which is asked, over which connection, and how they fare."""
