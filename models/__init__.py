"""The models of dislab, one file each, to be read from top to bottom."""
