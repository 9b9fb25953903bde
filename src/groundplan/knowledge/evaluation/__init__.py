"""Whether search is any good: labelled questions, rankings, figures with confidence, compared with the last run."""
