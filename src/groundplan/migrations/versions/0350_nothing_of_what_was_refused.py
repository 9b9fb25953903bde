"""What was not accepted is worth nothing: `0350_nothing_of_what_was_refused.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
