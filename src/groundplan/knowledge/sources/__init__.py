"""Connectors: where documents are read from, behind one small contract."""
