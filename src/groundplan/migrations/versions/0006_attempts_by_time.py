"""Attempts are found by their time: `0006_attempts_by_time.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
