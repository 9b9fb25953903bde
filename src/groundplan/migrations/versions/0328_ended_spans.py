"""Spans of limits that ended are forgotten whoever they were of: `0328_ended_spans.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
