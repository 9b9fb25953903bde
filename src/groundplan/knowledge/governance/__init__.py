"""The effective values of documents, with their origins, decisions about them, and shared links."""
