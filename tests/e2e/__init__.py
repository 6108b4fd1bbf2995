"""End-to-end tests with real engines and clients, and the real commands as processes."""
