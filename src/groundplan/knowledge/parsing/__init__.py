"""Parses the bytes of a document into text and metadata, in a confined child process."""
