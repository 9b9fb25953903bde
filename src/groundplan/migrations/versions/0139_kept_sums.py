"""More sums that are kept: `0139_kept_sums.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
