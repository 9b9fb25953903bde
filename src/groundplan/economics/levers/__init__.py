"""Where money may be saved besides another model: found in what calls, prompts, passages and kept content show."""
