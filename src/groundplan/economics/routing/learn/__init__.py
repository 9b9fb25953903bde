"""Training and evaluation of learned routers, outside the product, with the extra `economics`."""
