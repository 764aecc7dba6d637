"""What should happen: pure functions and one sans-IO engine. No clock, no disk, no logging."""
