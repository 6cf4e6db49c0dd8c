"""The `shadowfault` command: one entry point over the SDK, service, operator and local cluster."""
