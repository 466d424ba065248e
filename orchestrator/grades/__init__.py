"""Models opened and graded, each in a process that may do little else; and which one stands."""
