"""The plan of the company for the routes: as served, re-planned, on paper. Solving is `placement`'s."""
