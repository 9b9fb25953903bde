"""Lines of batches that are ordered at providers: `0105_batch_orders.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
