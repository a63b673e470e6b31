"""The datasets of dislab, one file each."""
