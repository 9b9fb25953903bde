"""From the bytes of a document to its text and what it says of itself, in a child process that may do nothing else."""
