"""Anthropic's message batches: `0151_message_batches.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
