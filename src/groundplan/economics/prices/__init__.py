"""What tokens cost and how many there were: reports of providers read into one shape, prices with their history."""
