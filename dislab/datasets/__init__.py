"""The datasets of dislab, one file each; `base` holds what they share."""

from __future__ import annotations

__all__ = ["Dataset", "load_dataset"]


def __getattr__(name: str):
    # Imported when first used: `dislab data` looks at files only, and does not wait for torch.
    if name not in __all__:
        raise AttributeError(f"module 'dislab.datasets' has no attribute '{name}'")
    from dislab.datasets import base

    return getattr(base, name)
