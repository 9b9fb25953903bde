"""What open calls of a worker hold of a budget is told: `0345_open_calls_told.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
