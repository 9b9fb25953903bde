"""Decisions from a command line: `0103_terminals.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
