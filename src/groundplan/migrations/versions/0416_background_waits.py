"""Why a response in the background waits: `0416_background_waits.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
