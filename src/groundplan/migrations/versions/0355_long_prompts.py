"""An index of attempts with long prompts: `0355_long_prompts.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
