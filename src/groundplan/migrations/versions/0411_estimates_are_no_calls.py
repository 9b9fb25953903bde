"""What no model answers is no call in live figures: `0411_estimates_are_no_calls.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
