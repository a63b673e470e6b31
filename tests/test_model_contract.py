"""The contract of a model: every way of breaking it is one line that names what is wrong."""

import pytest
from conftest import IMAGE_SHAPE
from torch import nn

from dislab.errors import DislabError
from dislab.models.cyclevae import CycleVAE
from dislab.models.mlvae import MLVAE
from dislab.models.vae import VAE
from dislab.networks.distributions import LIKELIHOODS
from dislab.registry import MODELS
from dislab.training.model import METHODS, check_model, check_model_class, constructor_parameters

NAMES = [
    "adagvae",
    "adamlvae",
    "annealedvae",
    "betatcvae",
    "betavae",
    "cyclevae",
    "dcign",
    "dipvae1",
    "dipvae2",
    "factorvae",
    "gvae",
    "gvae_groups",
    "hfs",
    "infogan",
    "infovae",
    "mlvae",
    "mlvae_adversarial",
    "mlvae_pairs",
    "mlvae_svi",
    "oracle",
    "pca",
    "qlae",
    "s2_betatcvae",
    "s2_betavae",
    "s2_dipvae1",
    "s2_factorvae",
    "slowvae",
    "untrained",
    "vae",
]


@pytest.mark.parametrize("name", NAMES)
def test_built_in_models_keep_the_contract(name):
    entry = MODELS[name]
    check_model_class(entry.make, name)
    model = entry.make(IMAGE_SHAPE)
    own = {attribute for attribute in METHODS if hasattr(model, attribute)}
    parameters = {key: value.clone() for key, value in model.state_dict().items()}
    assert check_model(model, name) is model
    for attribute in METHODS:
        assert (getattr(model, attribute) is not None) == (attribute in own)
    assert (list(model.blocks) == ["content", "style"]) == isinstance(model, MLVAE | CycleVAE)
    assert model.state_dict().keys() == parameters.keys()
    assert check_model(model, name) is model, "a second time, too"


def test_every_built_in_model_is_in_the_list():
    assert [entry.name for entry in MODELS if entry.make.__module__.startswith("dislab.models.")] == NAMES


def test_what_is_optional_is_filled_in():
    class Least(nn.Module):
        supervision = "iid"

        def __init__(self, image_shape):
            super().__init__()
            self.latents = 2
            self.encode = nn.Linear(4, 2)  # a module is as good as a method

        def loss(self, batch, step):
            return {"loss": self.encode(batch.images).sum()}

    check_model_class(Least, "least")
    model = check_model(Least(IMAGE_SHAPE), "least")
    assert model.blocks == {}
    for name in ("fit", "encode_rows", "encode_groups", "report", "mean_image", "reconstruction", "decode"):
        assert getattr(model, name) is None
    assert model.group_size is None and model.likelihood is None
    assert list(model.state_dict()) == ["encode.weight", "encode.bias"]


class WithoutImageShape(VAE):
    def __init__(self, *, latents: int = 2):
        super().__init__(IMAGE_SHAPE, latents=latents)


class OtherFirstArgument(VAE):
    def __init__(self, shape, *, latents: int = 2):
        super().__init__(shape, latents=latents)


class Positional(VAE):
    def __init__(self, image_shape, width=3, *, latents: int = 2):
        super().__init__(image_shape, latents=latents)


class WithoutDefault(VAE):
    def __init__(self, image_shape, *, width, **others):
        super().__init__(image_shape, **others)


class Plain(nn.Module):
    supervision = "iid"


class WithoutSupervision(nn.Module):
    def __init__(self, image_shape):
        super().__init__()


class WrongSupervision(VAE):
    supervision = "group"


CONSTRUCTOR = "its constructor must take (image_shape, *, hyper-parameters with defaults), but "


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda image_shape: VAE(image_shape), "model 'x' must be a class derived from torch.nn.Module"),
        (dict, "model 'x' must be a class derived from torch.nn.Module"),
        (
            WithoutSupervision,
            "model 'x' lacks the class attribute `supervision`: choose none, iid, groups, pairs",
        ),
        (WrongSupervision, "model 'x': `supervision` is 'group': choose none, iid, groups, pairs"),
        (Plain, f"model 'x': {CONSTRUCTOR}its first argument is not `image_shape`"),
        (WithoutImageShape, f"model 'x': {CONSTRUCTOR}its first argument is not `image_shape`"),
        (OtherFirstArgument, f"model 'x': {CONSTRUCTOR}its first argument is not `image_shape`"),
        (Positional, f"model 'x': {CONSTRUCTOR}`width` is not keyword-only"),
        (WithoutDefault, f"model 'x': {CONSTRUCTOR}`width` has no default"),
    ],
)
def test_a_wrong_class_is_one_clear_line(make, message):
    with pytest.raises(DislabError) as error:
        check_model_class(make, "x")
    assert str(error.value) == message


def test_hyper_parameters_of_base_classes_count():
    class Derived(VAE):
        def __init__(self, image_shape, *, width: int = 3, **others):
            super().__init__(image_shape, **others)

    assert list(constructor_parameters(Derived)) == [
        "image_shape",
        *("width", "latents", "network", "likelihood", "pixel_logvar"),
    ]
    check_model_class(Derived, "derived")


def changed(kind: type, **attributes):
    """A small model of a class derived from `kind`, with other attributes; None stands for a missing one."""
    of_class = {name: value for name, value in attributes.items() if callable(value) or name == "blocks"}
    model = type("Changed", (kind,), of_class)(IMAGE_SHAPE, network="mlp")
    for name in attributes.keys() - of_class.keys():
        setattr(model, name, attributes[name])
    return model


@pytest.mark.parametrize(
    ("kind", "attributes", "message"),
    [
        (VAE, {"latents": None, "reconstruction": None}, "lacks `latents`, which supervision 'iid' needs"),
        (VAE, {"loss": None}, "lacks `loss`, which supervision 'iid' needs"),
        (VAE, {"encode": None}, "lacks `encode`, which scoring needs"),
        (VAE, {"supervision": "none"}, "lacks `fit`, which supervision 'none' needs"),
        (VAE, {"supervision": "groups"}, "lacks `group_size`, which supervision 'groups' needs"),
        (
            VAE,
            {"supervision": "none", "fit": lambda self, dataset, rows, generator: None, "latents": None},
            "lacks `latents`, which `reconstruction` needs",
        ),
        (MLVAE, {"decode": None}, "lacks `decode`, which `encode_groups` needs"),
        (MLVAE, {"likelihood": None}, "lacks `likelihood`, which `encode_groups` needs"),
        (MLVAE, {"blocks": {}}, "lacks `blocks`, which `encode_groups` needs"),
        (
            MLVAE,
            {"blocks": {"style": slice(0, 2)}},
            "`encode_groups` needs `blocks` of contents, then 'style'",
        ),
        (
            MLVAE,
            {"blocks": {"style": slice(0, 2), "content": slice(2, 4)}},
            "`encode_groups` needs `blocks` of contents, then 'style'",
        ),
        (VAE, {"blocks": {"content": 3}}, "`blocks` must map names to slices of the code dimensions"),
        (VAE, {"blocks": [slice(0, 3)]}, "`blocks` must map names to slices of the code dimensions"),
        (VAE, {"latents": 2.5}, "`latents` is 2.5: it must be 1 or more"),
        (MLVAE, {"group_size": -1}, "`group_size` is -1: it must be 0 or more"),
        (MLVAE, {"likelihood": "x"}, f"`likelihood` is 'x': choose {', '.join(LIKELIHOODS)}"),
        (VAE, {"loss": lambda self, batch: {}}, "`loss` must be a method that takes (batch, step)"),
        (VAE, {"encode": lambda self: None}, "`encode` must be a method that takes (images)"),
        (VAE, {"decode": 3}, "`decode` must be a method that takes (codes)"),
        (VAE, {"mean_image": lambda self, a, b: a}, "`mean_image` must be a method that takes (codes)"),
        (VAE, {"report": lambda self: {}}, "`report` must be a method that takes (image_shape)"),
        (
            VAE,
            {"reconstruction": lambda self, images: images},
            "`reconstruction` must be a method that takes (images, noise)",
        ),
        (
            MLVAE,
            {"encode_groups": lambda self, images: images},
            "`encode_groups` must be a method that takes (images, groupings)",
        ),
        (
            VAE,
            {"encode_rows": lambda self, rows: rows},
            "`encode_rows` must be a method that takes (dataset, rows)",
        ),
        (
            VAE,
            {"supervision": "none", "fit": lambda self, dataset: None},
            "`fit` must be a method that takes (dataset, rows, generator)",
        ),
    ],
)
def test_a_wrong_model_is_one_clear_line(kind, attributes, message):
    with pytest.raises(DislabError) as error:
        check_model(changed(kind, **attributes), "x")
    assert str(error.value) == f"model 'x'{'' if message.startswith('lacks') else ':'} {message}"
