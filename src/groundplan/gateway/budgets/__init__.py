"""Slices of budgets and limits: what a worker holds, what it reserves from them, and where they come from."""
