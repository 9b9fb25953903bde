"""Everything that was spent, line by line: what was measured, and what is divided by declared rules, exactly."""
