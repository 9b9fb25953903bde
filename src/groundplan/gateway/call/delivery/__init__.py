"""An answer on its way to the client: as a stream, as bytes, or whole."""
