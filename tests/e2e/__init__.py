"""The whole way with real engines and clients, and the real commands as processes."""
