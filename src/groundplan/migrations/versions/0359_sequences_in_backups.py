"""Sequences in backups, and grants of somebody in thousands of groups: `0359_sequences_in_backups.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
