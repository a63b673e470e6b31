"""Datasets: their factors, images, files and parts held out."""
