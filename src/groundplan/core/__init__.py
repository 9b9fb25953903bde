"""What every part may use: ids, money, clock, errors, settings, database, audit log. No domain words live here."""
