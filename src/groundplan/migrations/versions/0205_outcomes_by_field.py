"""Each field of outcomes counts as its newest: `0205_outcomes_by_field.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
