"""Many daemons, each on a tree of its own, scraped by a real Prometheus with contrib's rules."""
