"""What people and documents cost up to each day of a month is kept: `0320_running_sums.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
