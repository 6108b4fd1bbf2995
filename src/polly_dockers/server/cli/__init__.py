"""The commands of ``polly-server``."""
