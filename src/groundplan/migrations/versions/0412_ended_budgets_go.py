"""What was held of budgets that ended with their keys goes, and files that are deleted: `0412_ended_budgets_go.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
