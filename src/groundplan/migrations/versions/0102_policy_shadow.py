"""Rules in live shadow: `0102_policy_shadow.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
