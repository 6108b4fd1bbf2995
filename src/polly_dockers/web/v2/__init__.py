"""/v2: the protocol of the OCI distribution specification."""
