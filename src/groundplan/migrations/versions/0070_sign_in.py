"""Proof of who signs in: `0070_sign_in.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
