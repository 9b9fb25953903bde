"""SLOs, incidents, drills and reviews. Not yet: the layer is reserved so that nothing else grows into its place."""
