"""Approvals of what production uses, for gateways: `0100_part_approvals.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
