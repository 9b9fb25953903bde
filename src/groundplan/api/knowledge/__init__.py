"""Documents and the search index as the control process keeps them: taken in, built, measured. Finding is not here."""
