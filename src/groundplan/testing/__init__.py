"""Shipped stand-ins that are real processes and clocks: what demos, tests and users' own drills run against."""
