"""The datasets of dislab, one file each; `base` holds what they share."""

from dislab.datasets.base import Dataset, load_dataset

__all__ = ["Dataset", "load_dataset"]
