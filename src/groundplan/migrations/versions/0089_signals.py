"""Signals of search in use: `0089_signals.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
