"""The APIs that callers speak: one module or family of modules for each endpoint, behind one contract (`interface`)."""
