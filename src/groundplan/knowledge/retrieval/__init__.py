"""Search for passages on behalf of a person: projections propose, live permissions decide; and the search service."""
