"""What judges said, and why a replay failed: `0361_what_judges_said.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
