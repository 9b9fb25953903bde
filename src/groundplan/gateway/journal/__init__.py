"""The gateway's durable record: written by each worker, shipped to PostgreSQL, recovered after a crash."""
