"""Readers as one number, editions of the search index: `0055_readers_interned.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
