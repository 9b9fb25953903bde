"""Learning a router and judging it on prompts never seen: beside the product, with the extra `economics`."""
