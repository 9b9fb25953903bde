"""Documents that laws ask for, filled from facts by one exporter; what is missing is marked."""
