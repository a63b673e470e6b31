"""Swapped images: does the content decide the class that is seen, and does the style not?"""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.table import CodeTable

REFERENCE = "Bouchacourt et al. 2017 (ML-VAE), figure 4"


@register_metric(
    "swap_accuracy",
    title="Share of swapped images in which a judge sees the class of the content",
    group="swap_scores",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    needs=("swaps", "groups"),
)
@register_metric(
    "swap_leak",
    title="Share of swapped images in which a judge sees the class of the style",
    group="swap_scores",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    direction="down",
    needs=("swaps", "groups"),
)
@register_metric(
    "swap_judge",
    title="Accuracy of the judge of swapped images on real test images",
    group="swap_scores",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    direction="",
    needs=("swaps", "groups"),
)
def swap_scores(table: CodeTable, rng: np.random.Generator) -> dict:
    """Return what a judge sees in images decoded from one class's content and another class's style.

    `dislab.scoring.swaps.swaps` says how the images are made and what the judge is. Nothing is random here.

    Parameters
    ----------
    table : what the judge read, in `swaps` int64 [S, 5]. With several groupings a score is the mean over
        them.

    Returns
    -------
    swap_accuracy, swap_leak : shares of images that are seen as the class of the content, of K = 10 images
        joined (fewer if half of the smallest class has fewer), and as that of the style.
    swap_accuracy_k1, swap_leak_k1 : with the content of one image.
    swap_accuracy_joined : K.
    swap_judge : share of real test images whose class the judge reads; the other scores cannot say more
        than it sees.
    swap_accuracy_per_grouping, swap_leak_per_grouping, swap_judge_per_grouping : if there are several.
    """
    grouping, images, *classes = table.swaps.T
    most = images.max()
    parts = {
        "swap_judge": 0,
        "swap_accuracy_k1": 1,
        "swap_leak_k1": 1,
        "swap_accuracy": most,
        "swap_leak": most,
    }
    scores = {"swap_accuracy_joined": most}
    for name, joined in parts.items():
        values = []
        for number in np.unique(grouping):
            seen, content, style = (part[(grouping == number) & (images == joined)] for part in classes)
            values.append((seen == (style if "leak" in name else content)).mean())
        scores[name] = np.mean(values)
        if len(values) > 1 and "k1" not in name:
            scores[f"{name}_per_grouping"] = values
    return scores
