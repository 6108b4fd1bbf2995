"""What keeps a registry healthy: garbage, check, backup, rebuild."""
