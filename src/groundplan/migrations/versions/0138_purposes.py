"""For what attempts are made: `0138_purposes.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
