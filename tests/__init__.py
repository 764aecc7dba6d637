"""The promises of the program, one folder per stage and one for what must never happen."""
