"""What tests of all kinds share: a server to start, a client for it, and ways to look into it."""
