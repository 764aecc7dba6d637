"""What operators may say, as values: configuration, its units, and the errors they get."""
