"""What became of each ticket is kept as it is told: `0275_tickets_told.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
