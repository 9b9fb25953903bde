"""What a tool answers is no call in live figures: `0417_uses_of_tools_are_no_calls.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
