"""The commands of polly-server, on servers of their own."""
