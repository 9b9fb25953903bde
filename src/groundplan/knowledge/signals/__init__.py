"""Search in use: clicks, thumbs, citations, and questions without an answer, by topic, for whoever owns the gap."""
