"""The most tokens of ordered calls: `0235_tokens_of_lines.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
