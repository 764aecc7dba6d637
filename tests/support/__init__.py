"""What several test folders need: namespaces, mounts, trees. No test lives here."""
