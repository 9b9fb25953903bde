"""The gateway keeps signals of search: `0147_signals_of_calls.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
