"""Versions that upstreams report: `0101_reported.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
