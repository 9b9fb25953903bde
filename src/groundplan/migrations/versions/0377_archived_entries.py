"""Entries of calls leave the database for files: `0377_archived_entries.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
