"""What people see: text made harmless, tables, colours, progress."""
