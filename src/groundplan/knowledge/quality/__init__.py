"""Quality of documents and tables: findings for their owners, and a score for each source."""
