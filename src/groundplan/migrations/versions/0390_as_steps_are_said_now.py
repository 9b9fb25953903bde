"""What steps of before say now, for databases that had them as they were first: `0390_as_steps_are_said_now.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
