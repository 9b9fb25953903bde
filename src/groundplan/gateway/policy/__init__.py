"""What a worker knows of the blueprint and of live policy, and who may use what."""
