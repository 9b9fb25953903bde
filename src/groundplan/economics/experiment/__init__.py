"""Experiments on live calls: who gets which model, and tests that may be looked at every day."""
