"""How fast the server is, beside its peers: ``scripts/bench`` runs the suite and writes docs/benchmarks.md."""
