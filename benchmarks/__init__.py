"""Studies and speed measurements of dislab."""
