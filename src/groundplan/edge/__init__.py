"""Fleet controller and rollouts to devices. Not yet: the layer is reserved, and nothing else grows into its place."""
