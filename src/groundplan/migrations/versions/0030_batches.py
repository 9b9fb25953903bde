"""Files and batches: `0030_batches.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
