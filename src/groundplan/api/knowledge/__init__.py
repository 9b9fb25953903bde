"""Documents and the search index in the control process: ingestion, building, evaluation. Search is elsewhere."""
