"""An index of attempts after the first: `0097_retried.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
