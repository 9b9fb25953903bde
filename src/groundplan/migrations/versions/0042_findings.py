"""Findings that are known again: `0042_findings.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
