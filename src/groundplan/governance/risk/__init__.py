"""What follows from the declared risk of a workload: its class, its duties, its dates."""
