"""What must never happen, under attack; and proof that these tests would notice."""
