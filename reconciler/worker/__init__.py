"""The only cleaner: what is removed is removed here, in worker processes that can be killed."""
