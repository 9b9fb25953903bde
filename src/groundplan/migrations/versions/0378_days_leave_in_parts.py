"""Days of many calls leave in parts: `0378_days_leave_in_parts.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
