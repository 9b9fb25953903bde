"""What a person may read is worked out once in a transaction: `0056_standing.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
