"""Programs that draw the pictures in the documents."""
