"""Renderers that draw a dataset's whole factor grid, so that no download is needed."""
