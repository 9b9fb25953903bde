"""Problems to measure and test the solver with: published formats, and random companies from a seed."""
