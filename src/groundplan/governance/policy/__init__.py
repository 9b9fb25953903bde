"""Company rules in Cedar: parsed once, narrowed to what a workload can meet, decided so that an error denies."""
