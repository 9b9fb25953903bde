"""Fleet controller and rollouts to devices. Not yet: the layer is reserved so that nothing else grows into its place."""
