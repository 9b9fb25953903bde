"""From source to answer and back: what an answer rested on, and which answers used a document."""
