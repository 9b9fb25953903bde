"""Configurations and bills of other tools, as documents of a workspace, with a verdict on what has no equal here."""
