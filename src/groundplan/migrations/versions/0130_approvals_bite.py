"""Approvals of evidence and of rollouts bite: `0130_approvals_bite.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
