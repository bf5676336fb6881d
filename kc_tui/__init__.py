"""What a person touches: the terminal application and the command line."""
