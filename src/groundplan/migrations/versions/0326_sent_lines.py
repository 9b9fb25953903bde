"""A gateway sees of which calls there are attempts: `0326_sent_lines.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
