"""Shipped stand-ins that are real processes and clocks: what demos, tests and users' own drills run against."""

from groundplan.testing.clock import ManualClock

__all__ = ["ManualClock"]
