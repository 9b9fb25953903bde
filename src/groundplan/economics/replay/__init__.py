"""A cheaper model, proven: replayed calls judged in pairs, and the quality that a proposal may promise."""
