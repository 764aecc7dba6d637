"""The loop in virtual time, and what schedules its looks."""
