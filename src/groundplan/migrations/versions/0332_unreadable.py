"""What an unreadable document replaces stays out: `0332_unreadable.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
