"""Whether what an answer cites says what the answer says: its marks, and the look at each."""
