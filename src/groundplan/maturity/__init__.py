"""How ready a workload is: points that evidence earns (`score`), and what to do next where there is none.

Nothing is kept here that could go stale.
"""
