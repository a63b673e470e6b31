"""How tables and pages call scores, models and datasets, and which scores they show first."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dislab.registry import METRICS, unknown_name

ARROWS = {"up": "↑", "down": "↓", "": ""}  # which way a score is better
DIRECTIONS = {"up": "higher is better", "down": "lower is better", "": ""}
MOST_HEADLINES = 8

# The scores that tables show first, in this order: what each is called, and what it says of a code.
HEADLINES = {
    "betavae_score": ("BetaVAE", "names the factor held fixed, from pairs"),
    "factorvae_score": ("FactorVAE", "names the fixed factor, from one dimension"),
    "mig": ("MIG", "each factor in one dimension only"),
    "dci_disentanglement": ("DCI-D", "each dimension knows one factor only"),
    "sap": ("SAP", "each factor readable from one dimension only"),
    "modularity": ("Modularity", "each dimension informs on one factor only"),
    "content_accuracy": ("Content acc.", "class read from the content code"),
    "style_accuracy": ("Style acc.", "class read from the style code: should be chance"),
}
# The score that stands in for a headline score where no row has that.
STAND_INS = {"dci_disentanglement": "dci_fast_disentanglement"}
SCORES = {name: label for name, (label, _) in HEADLINES.items()} | {
    "active_units": "Active units",
    "content_entropy": "Content H",
    "dci_completeness": "DCI-C",
    "dci_fast_completeness": "DCI-C (fast)",
    "dci_fast_disentanglement": "DCI-D (fast)",
    "dci_fast_informativeness": "DCI-I (fast)",
    "dci_informativeness": "DCI-I",
    "dcies_explicitness": "DCI-ES E",
    "dcies_size": "DCI-ES S",
    "dcimig": "DCIMIG",
    "elbo": "ELBO",
    "explicitness": "Explicitness",
    "fov_regression": "FoV R²",
    "fov_regression_r2": "FoV R² (Soft TPR)",
    "infocompactness": "InfoC",
    "infoexplicitness": "InfoE",
    "infomodularity": "InfoM",
    "irs": "IRS",
    "jemmig": "JEMMIG",
    "kl": "KL",
    "mcc_pearson": "MCC (Pearson)",
    "mcc_spearman": "MCC (Spearman)",
    "mig_continuous": "MIG (continuous)",
    "median_angular_error_degrees": "Angular error (°)",
    "mig_sampled": "MIG (sampled)",
    "mig_sup": "MIG-sup",
    "nk": "NK",
    "omes": "OMES",
    "sap_continuous": "SAP (continuous)",
    "snc": "SNC",
    "style_entropy": "Style H",
    "total_correlation": "TC",
    "unfairness": "Unfairness",
    "wren_accuracy": "WReN acc.",
}
MODELS = {
    "adagvae": "Ada-GVAE",
    "adamlvae": "Ada-ML-VAE",
    "annealedvae": "AnnealedVAE",
    "betatcvae": "β-TCVAE",
    "betavae": "β-VAE",
    "cyclevae": "Cycle-VAE",
    "dcign": "DC-IGN",
    "dipvae1": "DIP-VAE-I",
    "dipvae2": "DIP-VAE-II",
    "factorvae": "FactorVAE",
    "gvae": "GVAE",
    "gvae_groups": "GVAE (groups)",
    "hfs": "HFS",
    "infogan": "InfoGAN",
    "infovae": "InfoVAE",
    "mlvae": "ML-VAE",
    "mlvae_adversarial": "ML-VAE (adversarial)",
    "mlvae_pairs": "ML-VAE (pairs)",
    "mlvae_svi": "ML-VAE (SVI)",
    "pca": "PCA",
    "qlae": "QLAE",
    "slowvae": "SlowVAE",
    "vae": "VAE",
}
DATASETS = {
    "abstract_dsprites": "Abstract dSprites",
    "cars3d": "Cars3D",
    "celeba": "CelebA",
    "color_dsprites": "Color dSprites",
    "dsprites": "dSprites",
    "falcor3d": "Falcor3D",
    "isaac3d": "Isaac3D",
    "mnist": "MNIST",
    "mpi3d_real": "MPI3D-real",
    "mpi3d_real_complex": "MPI3D-real-complex",
    "mpi3d_realistic": "MPI3D-realistic",
    "mpi3d_toy": "MPI3D-toy",
    "noisy_dsprites": "Noisy dSprites",
    "olivetti": "Olivetti",
    "pascal3d_car": "PASCAL3D+ cars",
    "pascal3d_chair": "PASCAL3D+ chairs",
    "scream_dsprites": "Scream dSprites",
    "shapes3d": "Shapes3D",
    "smallnorb": "SmallNORB",
}


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 seed", "30,000 images"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def label_of(score: str) -> str:
    """Return what a table calls a score; one of another metric protocol says so: "SAP@scale=unit"."""
    plain, at, protocol = score.partition("@")
    return SCORES.get(plain, plain) + at + protocol


def meaning_of(score: str) -> str:
    """Return in a few words what a score says of a code: of a headline score, else its registered title."""
    plain = score.partition("@")[0]
    plain = next((name for name, other in STAND_INS.items() if other == plain), plain)
    if plain in HEADLINES:
        return HEADLINES[plain][1]
    return METRICS[plain].title if plain in METRICS else ""


def headline_names(scores: Collection[str]) -> list[str]:
    """Return the headline scores in their order; one that `scores` lack by the name of its stand-in there."""
    plain = {score.partition("@")[0] for score in scores}
    return [
        STAND_INS[name] if name not in plain and STAND_INS.get(name) in plain else name for name in HEADLINES
    ]


def headlines(scores: Collection[str], first: str = "") -> list[str]:
    """Return the scores that a table shows if none is named: all of at most 8, else the headline scores.

    A metric that dislab does not have itself is among these, because a user has added it.

    Parameters
    ----------
    scores : of metrics, as records have them.
    first : the score that orders the table; it is shown in any case.
    """
    order = {name: number for number, name in enumerate(headline_names(scores))}

    def place(score: str) -> int:
        return order.get(score.partition("@")[0], len(order))

    chosen = sorted(scores, key=place)
    if len(chosen) > MOST_HEADLINES:
        known = [s for s in chosen if place(s) < len(order) or not METRICS.is_built_in(s.partition("@")[0])]
        chosen = (known or chosen)[:MOST_HEADLINES]
    if first in scores and first not in chosen:
        chosen = [first, *chosen[: MOST_HEADLINES - 1]]
    return chosen


def chosen(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Return names of scores; raise DislabError if no row has one of them."""
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in known:
            raise unknown_name("score", name, known)
    return names
