"""By which checks the tables of a document were looked at: `0227_tables_checked.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
