"""Cached answers: `0032_cached_answers_unlogged.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
