"""The supervisor of real workers: what they say becomes events, what is decided becomes messages."""
