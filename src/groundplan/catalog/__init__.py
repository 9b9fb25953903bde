"""What is declared: the kinds of the YAML, each mistake told by file and line. `loader` reads, `check` checks.

`rules` holds kinds against each other. What a declaration means for a call is decided in `release`.
"""
