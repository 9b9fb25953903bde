"""A request on its way through the six steps: identify, admit, cache, ground, serve, settle."""
