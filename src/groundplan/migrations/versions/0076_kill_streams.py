"""Kills that end answers under way: `0076_kill_streams.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
