"""Which model a call deserves: `learn` makes a router from evidence, `versions` keeps it, `decide` is what a gateway
runs, `watch` tells what became of the calls."""
