"""How pages call models, methods, datasets and scores, and how they write numbers."""

from __future__ import annotations

import math
import re

from dislab.errors import DislabError
from dislab.registry import MODELS, Entry, Registry
from dislab.report import names

# Names of published methods that dislab does not have, and of two models that every table has.
METHODS = {
    "oracle": "Oracle",
    "untrained": "Untrained",
    "adagvae_k": "Ada-GVAE, k known",
    "cfasl": "CFASL",
    "closed_form": "ClosedForm",
    "comet": "COMET",
    "commutative_lie_group_vae": "Lie group VAE",
    "controlvae": "ControlVAE",
    "dava": "DAVA",
    "deep_spectral": "DeepSpectral",
    "diffae": "DiffAE",
    "disco_gan": "DisCo (GAN)",
    "disco_vae": "DisCo (VAE)",
    "disdiff_vq": "DisDiff-VQ",
    "encdiff": "EncDiff",
    "fdae": "FDAE",
    "ganspace": "GANSpace",
    "ib_gan": "IB-GAN",
    "infogan_cr": "InfoGAN-CR",
    "latent_discovery": "LatentDiscovery",
    "shu": "Shu et al.",
    "soft_tpr": "Soft TPR",
    "tc_gan": "TC-GAN",
    "vct": "VCT",
}
BESIDE = {  # values beside a score
    "content_accuracy_k10": "Content acc., k = 10",
    "style_accuracy_sampled": "Style acc., draw",
}
UNITS = {
    "content_entropy": "bits",
    "style_entropy": "bits",
    **dict.fromkeys(("elbo", "kl", "index_code_mi", "total_correlation", "dimension_wise_kl"), "nats"),
    **dict.fromkeys(("gaussian_total_correlation", "mutual_info_score"), "nats"),
}
LONGEST = 24  # characters of a title that serves as a name


def model_name(name: str) -> str:
    """Return how pages call a model or a published method: mlvae is "ML-VAE"."""
    name, bracket, size = name.partition(" (")  # of a published method: "gvae (parameter-matched)"
    return _model_name(name) + bracket + size.removeprefix("parameter-")


def _model_name(name: str) -> str:
    entry = entry_of(MODELS, name)
    if name in METHODS and (entry is None or MODELS.is_built_in(name)):
        return METHODS[name]
    if name in names.MODELS and (entry is None or MODELS.is_built_in(name)):
        return names.MODELS[name]
    return entry.title if entry is not None and 0 < len(entry.title) <= LONGEST else name


def dataset_name(name: str) -> str:
    """Return how pages call a dataset: shapes3d is "Shapes3D"."""
    return names.DATASETS.get(name, name)


def score_name(recorded: str) -> str:
    """Return how pages call a score, with its unit, and with the settings that it was computed by."""
    plain, _, settings = recorded.partition("@")
    name = BESIDE.get(plain) or names.label_of(plain).replace("_", " ")
    remarks = [UNITS[plain]] if plain in UNITS else []
    remarks += [settings] if settings else []
    return f"{name} ({', '.join(remarks)})" if remarks else name


def entry_of(registry: Registry, name: str) -> Entry | None:
    """Return a registered entry, or None: of a plug-in that is not loaded, or of a later version."""
    try:
        return registry[name]
    except DislabError:
        return None


# Numbers -------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Return a score as text: three decimals below 100, else none, with a true minus sign."""
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    if not re.search("[1-9]", text):  # no minus before 0.000
        text = text.lstrip("-")
    return text.replace("-", "−")


def short(value: object) -> str:
    """Return a hyper-parameter's value as text: 6.0 is "6"."""
    return f"{value:g}" if isinstance(value, float) else str(value)
