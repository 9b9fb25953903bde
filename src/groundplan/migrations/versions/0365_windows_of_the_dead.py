"""What a dead worker held of windows is closed at once: `0365_windows_of_the_dead.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
