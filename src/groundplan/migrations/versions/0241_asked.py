"""Requests that several workloads made alike: `0241_asked.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
