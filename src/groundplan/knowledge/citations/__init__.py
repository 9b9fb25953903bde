"""Checks whether the passages that an answer cites support its statements."""
