"""Connectors to the sources that documents are read from, behind one small contract."""
