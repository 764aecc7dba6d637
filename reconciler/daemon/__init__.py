"""The daemon: the loop with a configuration file, endpoints, a ledger and a service manager."""
