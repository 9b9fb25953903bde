"""What is put before the model and checked after it where a call has sources; the step itself is `ground`."""
