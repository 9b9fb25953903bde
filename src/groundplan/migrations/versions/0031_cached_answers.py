"""Cached answers: `0031_cached_answers.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
