"""Stand-ins for the clouds: a machine's life, who bills it, and the web services before it."""
