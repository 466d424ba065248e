"""A session told as one page to keep: gathered from what is recorded, drawn, written."""
