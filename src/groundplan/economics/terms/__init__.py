"""What a cost is made of: the parts of an attempt, and every term of a call with its rule and source."""
