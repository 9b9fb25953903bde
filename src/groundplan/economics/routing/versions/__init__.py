"""Learned routers as bytes, and as numbered files of a HOME that are never changed."""
