"""What calls of each key cost is kept by day: `0277_keys_by_day.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
