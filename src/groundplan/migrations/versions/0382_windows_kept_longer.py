"""Windows of limits are kept longer, batches know what they are for, and who sends to the SIEM says so:
`0382_windows_kept_longer.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
