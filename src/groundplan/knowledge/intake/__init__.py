"""Bringing PostgreSQL up to date with a source: what changed, parsed, chunked and stored, and nothing twice."""
