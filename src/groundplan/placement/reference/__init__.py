"""Reference facts that ship with Groundplan, each with its source, its date and how long it holds."""
