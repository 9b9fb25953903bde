"""Daily samples of what is kept: `0175_kept_bytes.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
