"""What may be retrieved: `0050_governed.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
