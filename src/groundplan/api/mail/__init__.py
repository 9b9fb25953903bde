"""Mail to owners: the queue, SMTP, and the weekly mail about costs. The inbox of the console has the same content."""
