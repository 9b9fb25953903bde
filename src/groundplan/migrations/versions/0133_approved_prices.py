"""Approvals of models know the price: `0133_approved_prices.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
