"""Who replaces a path is found at once: `0292_superseded_by_path.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
