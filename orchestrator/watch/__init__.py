"""The live view: what is to be seen now, kept fresh over one connection, drawn or printed."""
