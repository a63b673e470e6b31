"""The datasets of dislab. One file says everything about a dataset: its published files, reader and name."""
