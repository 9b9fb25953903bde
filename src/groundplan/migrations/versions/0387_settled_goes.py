"""What is settled of budgets, limits and batches goes after a time: `0387_settled_goes.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
