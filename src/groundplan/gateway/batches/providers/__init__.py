"""The batch APIs of providers, as orders use them: one interface, and an implementation for each API."""
