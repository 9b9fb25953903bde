"""What holds for a document, where each value comes from, and who decided it."""
