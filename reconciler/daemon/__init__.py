"""The daemon: the loop with a configuration file, endpoints, a checkpoint and a service manager."""
