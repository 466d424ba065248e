"""Several machines as one remote."""
