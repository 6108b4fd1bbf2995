"""/v2: the interface of the OCI distribution specification."""
