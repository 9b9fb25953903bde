"""What is wrong with documents and tables, as findings for their owners, and a score for each source."""
