"""Calls of a day by worker: `0120_worker_days.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
