"""Gateways may look up whose call an outcome is about: `0010_outcomes_by_key.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
