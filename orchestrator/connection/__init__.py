"""The way to a machine: SSH, keys, and who is who."""
