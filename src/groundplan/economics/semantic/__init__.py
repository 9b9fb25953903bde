"""Whether two requests mean the same: readings, guards against traps, likeness, acceptance that keeps a bound."""
