"""Stored chat completions: `0215_stored_completions.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
