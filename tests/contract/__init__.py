"""What every implementation keeps to, and the client that tests of the wire speak through."""
