"""What we believe: pure values, no clock, no disk, no logging."""
