"""What has to go is found by the oldest rows: `0373_oldest_kept_rows.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
