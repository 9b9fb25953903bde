"""Finding passages for a person: projections propose, live permissions dispose, and the service around them."""
