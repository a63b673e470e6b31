"""The Ada-ML-VAE: the estimated shared set of the Ada-GVAE, and the product of posteriors of the ML-VAE."""

from dislab.models.adagvae import AdaGVAE
from dislab.models.mlvae_pairs import MLVAEPairs
from dislab.registry import register_model


@register_model("adamlvae", title="Ada-ML-VAE", reference="Locatello et al. 2020, arXiv:2002.02886")
class AdaMLVAE(AdaGVAE, MLVAEPairs):
    """Ada-ML-VAE: the shared set of the Ada-GVAE, with the product of Normals of the ML-VAE.

    Its hyper-parameters are those of both.
    """
