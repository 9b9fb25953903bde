"""Why each workload is where it is and what the plan as a whole is worth, as numbers and in words."""
