"""Approvals that end, and mail: `0072_approvals.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
