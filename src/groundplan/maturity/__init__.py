"""Readiness of workloads: points earned by evidence (`score`), and the next step where evidence is missing.

Nothing is stored: evidence is gathered anew each time.
"""
