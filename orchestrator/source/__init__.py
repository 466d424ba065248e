"""The code as it is sent: what of a folder counts, frozen, and kept."""
