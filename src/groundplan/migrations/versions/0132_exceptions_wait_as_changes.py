"""Exceptions from company rules wait as changes do: `0132_exceptions_wait_as_changes.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
