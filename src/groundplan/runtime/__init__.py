"""The machinery behind `up`: PostgreSQL, migrations, supervised processes, model files, backups. Knows core only."""
