"""Mail to owners: queued, handed over, and the weekly one about cost. The inbox of the console tells the same."""
