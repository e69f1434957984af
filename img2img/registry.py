"""Closed tables: a name in a recipe stands for a function or class of this package, and its signature is the schema."""

import contextlib
import difflib
import importlib
import inspect
import reprlib
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any

TABLES: dict[str, dict[str, str]] = {
    "task": {
        "adversarial_autoencoder": "systems.autoencode:AdversarialAutoencoder",
        "avb": "systems.autoencode:AdversarialVariationalBayes",
        "bidirectional": "systems.bidirectional:Bidirectional",
        "cogan": "systems.adapt:CoGAN",
        "cogan_labelled": "systems.adapt:LabelledCoGAN",
        "conditional": "systems.conditional:Conditional",
        "contrastive": "systems.contrastive:Contrastive",
        "dtn": "systems.adapt:DTN",
        "generate": "systems.generate:Generate",
        "infogan": "systems.conditional:InfoGAN",
        "paired": "systems.paired:Paired",
        "pyramid": "systems.pyramid:Pyramid",
        "conditional_pyramid": "systems.pyramid:ConditionalPyramid",
        "pixelda": "systems.adapt:PixelDA",
        "semi_supervised": "systems.semi_supervised:SemiSupervised",
        "semi_supervised_autoencoder": "systems.semi_supervised:SemiSupervisedAutoencoder",
        "simgan": "systems.adapt:SimGAN",
        "structure_style": "systems.paired:StructureStyle",
        "super_resolve": "systems.super_resolve:SuperResolve",
        "supervised_autoencoder": "systems.autoencode:SupervisedAutoencoder",
        "text": "systems.text:TextToImage",
        "unpaired": "systems.unpaired:Unpaired",
    },
    "network": {
        "autoencoder_discriminator": "networks.autoencoder:AutoencoderDiscriminator",
        "biggan_generator": "networks.biggan:BigGANGenerator",
        "classifier": "networks.classifier:Classifier",
        "cogan_discriminator": "networks.cogan:CoGANDiscriminator",
        "cogan_generator": "networks.cogan:CoGANGenerator",
        "dcgan_discriminator": "networks.dcgan:DCGANDiscriminator",
        "dcgan_generator": "networks.dcgan:DCGANGenerator",
        "encoder": "networks.joint:Encoder",
        "fast": "networks.fast:Fast",
        "implicit_encoder": "networks.joint:ImplicitEncoder",
        "joint_discriminator": "networks.joint:JointDiscriminator",
        "fixed_classifier": "networks.fixed:FixedClassifier",
        "lapgan_discriminator": "networks.lapgan:LAPGANDiscriminator",
        "lapgan_generator": "networks.lapgan:LAPGANGenerator",
        "mlp": "networks.mlp:MLP",
        "markovian_discriminator": "networks.markovian:MarkovianDiscriminator",
        "mlp_discriminator": "networks.mlp:MLPDiscriminator",
        "mlp_generator": "networks.mlp:MLPGenerator",
        "patch_features": "networks.patch_features:PatchFeatures",
        "patchgan": "networks.patchgan:PatchGAN",
        "progressive_discriminator": "networks.progressive:ProgressiveDiscriminator",
        "progressive_generator": "networks.progressive:ProgressiveGenerator",
        "r3gan_discriminator": "networks.r3gan:R3GANDiscriminator",
        "r3gan_generator": "networks.r3gan:R3GANGenerator",
        "refiner": "networks.refiner:Refiner",
        "resnet": "networks.resnet:ResNet",
        "resnet_gan_discriminator": "networks.resnet_gan:ResNetDiscriminator",
        "resnet_gan_generator": "networks.resnet_gan:ResNetGenerator",
        "sentence_encoder": "networks.text_encoder:SentenceEncoder",
        "srgan_discriminator": "networks.srresnet:SRGANDiscriminator",
        "srresnet": "networks.srresnet:SRResNet",
        "stylegan_generator": "networks.stylegan:StyleGANGenerator",
        "text_discriminator": "networks.text_gan:TextDiscriminator",
        "text_encoder": "networks.text_encoder:TextEncoder",
        "text_generator": "networks.text_gan:TextGenerator",
        "unet": "networks.unet:UNet",
        "voxel_discriminator": "networks.voxel:VoxelDiscriminator",
        "voxel_generator": "networks.voxel:VoxelGenerator",
    },
    "adversarial": {
        "began": "adversarial.losses:BEGAN",
        "density_ratio": "adversarial.losses:DensityRatio",
        "ebgan": "adversarial.losses:EBGAN",
        "fgan": "adversarial.losses:FGAN",
        "hinge": "adversarial.losses:hinge",
        "least_squares": "adversarial.losses:least_squares",
        "logistic": "adversarial.losses:Logistic",
        "maximum_likelihood": "adversarial.losses:maximum_likelihood",
        "minimax": "adversarial.losses:minimax",
        "relativistic": "adversarial.losses:relativistic",
        "relativistic_average": "adversarial.losses:relativistic_average",
        "reverse_kl": "adversarial.losses:reverse_kl",
        "wasserstein": "adversarial.losses:wasserstein",
    },
    "penalty": {name: f"adversarial.penalties:{name}" for name in ("gradient_penalty", "r1", "r2")},
    "weight_penalty": {
        "historical_average": "adversarial.weights:HistoricalAverage",
        "mixture_spread": "adversarial.weights:mixture_spread",
        "orthogonal": "adversarial.weights:orthogonal",
    },
    "matching": {name: f"adversarial.matching:{name}" for name in ("feature_matching", "pulling_away")},
    "augment_critic": {
        "ada": "adversarial.augment:ADA",
        "diffaugment": "adversarial.augment:DiffAugment",
        "instance_noise": "adversarial.augment:InstanceNoise",
    },
    "fidelity": {
        "charbonnier": "fidelity.pixel:charbonnier",
        "cross_entropy": "fidelity.classification:cross_entropy",
        "l1": "fidelity.pixel:l1",
        "mse": "fidelity.pixel:mse",
        "patch_nce": "fidelity.contrastive:patch_nce",
        "perceptual": "fidelity.perceptual:Perceptual",
        "ssim": "fidelity.structural:ssim",
        "total_variation": "fidelity.total_variation:total_variation",
    },
    "augment": {"paired": "data.pairs:Augment"},
    "make": {
        name: f"data.make:{name}"
        for name in ("blur", "edges", "grey", "low_light", "masks", "outer_edges", "pixelate", "soft_edges")
    },
    "degradation": {
        "bicubic": "data.degrade:bicubic",
        "realistic": "data.degrade:Realistic",
        "unaligned": "data.degrade:unaligned",
    },
    "metric": {
        "accuracy": "metrics.labels:Accuracy",
        "assigned_accuracy": "metrics.labels:AssignedAccuracy",
        "box_iou": "metrics.boxes:BoxIoU",
        "caption_accuracy": "metrics.captions:CaptionAccuracy",
        "confident": "metrics.modes:Confident",
        "consistency": "metrics.consistency:Consistency",
        "coverage": "metrics.manifold:Coverage",
        "density": "metrics.manifold:Density",
        "fid": "metrics.frechet:FrechetDistance",
        "inception_score": "metrics.inception_score:InceptionScore",
        "kid": "metrics.kernel:KernelDistance",
        "l1": "fidelity.pixel:l1",
        "label_kept": "metrics.classification:LabelKept",
        "mode_divergence": "metrics.modes:ModeDivergence",
        "modes": "metrics.modes:Modes",
        "neighbour_distance": "metrics.neighbours:NeighbourDistance",
        "neural_distance": "metrics.neural_distance:NeuralDistance",
        "parzen": "metrics.parzen:Parzen",
        "perceptual": "metrics.perceptual:perceptual_distance",
        "point_distance": "metrics.boxes:PointDistance",
        "precision": "metrics.manifold:Precision",
        "psnr": "metrics.psnr:psnr",
        "recall": "metrics.manifold:Recall",
        "ssim": "metrics.ssim:ssim",
        "structure": "metrics.structure:Structure",
        "target_accuracy": "metrics.labels:TargetAccuracy",
    },
}


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest of ``names``, or an empty string when none is close."""
    found = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def lookup(kind: str, name: str) -> Any:
    """Return the object that ``name`` stands for in the table ``kind``.

    Raises:
        ValueError: the table has no such name; the message offers the nearest one.
    """
    table = TABLES[kind]
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}{nearest(name, table) or '; known: ' + ', '.join(table)}")
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(f"img2img.{module}"), attribute)


def options(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """Return what a recipe may set for a part: a class's constructor arguments, a function's keyword-only ones."""
    found = lookup(kind, name)
    if not callable(found):
        return {}
    skip = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    keyword_only = not inspect.isclass(found)
    return {
        key: parameter
        for key, parameter in inspect.signature(found).parameters.items()
        if parameter.kind not in skip and (not keyword_only or parameter.kind is inspect.Parameter.KEYWORD_ONLY)
    }


def part(kind: str, spec: dict[str, Any], **defaults: Any) -> Any:
    """Build the part that ``spec`` describes.

    Args:
        kind: a key of ``TABLES``.
        spec: ``{"type": name, option: value, ...}`` as it stands in a recipe.
        defaults: options used where the part accepts them and the recipe says nothing.

    Returns:
        An instance for a class, a function with its options bound for a function, a constant as it is.

    Raises:
        ValueError: unknown type, unknown option, or a value of the wrong kind; the message names the key and the mend.
    """
    if not isinstance(spec, dict) or not isinstance(spec.get("type"), str):
        raise ValueError(
            f"{kind}: expected a table with a 'type', got {spec!r}; e.g. {{ type = {next(iter(TABLES[kind]))!r} }}"
        )
    name = spec["type"]
    found = lookup(kind, name)
    known = options(kind, name)
    given = {key: value for key, value in spec.items() if key != "type"}
    for key, value in given.items():
        if key not in known:
            hint = nearest(key, known) or (f"; it takes {', '.join(known)}" if known else "; it takes none")
            raise ValueError(f"{kind} {name}: unknown option {key!r}{hint}")
        given[key] = checked(f"{kind} {name}: {key}", value, known[key].annotation)
    given = {key: value for key, value in defaults.items() if key in known} | given
    missing = [key for key, parameter in known.items() if parameter.default is parameter.empty and key not in given]
    if missing:
        raise ValueError(f"{kind} {name}: option {missing[0]!r} has no default; set it in the recipe")
    if inspect.isclass(found):
        try:
            with bounded(LARGEST) if kind == "network" else contextlib.nullcontext():
                return found(**given)
        except ValueError as error:
            own = kind == "task" or str(error).startswith(f"{kind} {name}: ")
            raise ValueError(f"{'' if own else f'{kind} {name}: '}{error}") from error
        except (TypeError, RuntimeError, ArithmeticError, MemoryError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"{kind} {name}: cannot be built with {reprlib.repr(given)}: {reason}") from error
    if isinstance(found, Callable) and not isinstance(found, tuple):
        return partial(found, **given) if given else found
    return found


LARGEST = 2**31
"""Numbers that a network may consist of."""


_bounds = threading.local()


@contextlib.contextmanager
def bounded(numbers: int, tensors: int = 10_000) -> Iterator[None]:
    """Refuse to build networks of more parameters than so, before the first number of one too many is written.

    Raises:
        ValueError: a network is larger than that.
    """
    _watch()
    outer, bound = getattr(_bounds, "open", []), [numbers, tensors]
    _bounds.open = [*outer, bound]
    try:
        yield
    finally:
        _bounds.open = outer


@cache
def _watch() -> None:
    """Have PyTorch tell of every new parameter; once, since its table of hooks bears no change beside other threads."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    def count(module: Any, name: str, parameter: Any) -> None:
        # A new parameter's memory is untouched as yet, and takes no room.
        for bound in getattr(_bounds, "open", []) if parameter is not None else []:
            bound[0] -= parameter.numel()
            bound[1] -= 1
            if min(bound) < 0:
                raise ValueError("the network is larger than its file, or than any machine could bear; make it smaller")

    register_module_parameter_registration_hook(count)


KINDS = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false", "dict": "table"}


def checked(where: str, value: Any, hint: Any) -> Any:
    """Return ``value`` fit for the type hint (an int where a float is asked, a list where a tuple is asked).

    Raises:
        ValueError: the value is of another kind; the message starts with ``where``.
    """
    if hint is inspect.Parameter.empty or hint is Any:
        return value
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        choices = typing.get_args(hint)
        for choice in choices:
            try:
                return None if choice is type(None) and value is None else checked(where, value, choice)
            except ValueError:
                continue
    elif origin is typing.Literal:
        if value in typing.get_args(hint):
            return value
        names = [str(choice) for choice in typing.get_args(hint)]
        raise ValueError(f"{where}: {reprlib.repr(value)} is none of {', '.join(names)}{nearest(str(value), names)}")
    elif origin is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) < 1e300:
            raise ValueError(f"{where}: must be a finite number")
        return float(value)
    elif origin is int and isinstance(value, int) and not isinstance(value, bool):
        if not abs(value) < 2**63:
            raise ValueError(f"{where}: the number is too large")
        return value
    elif origin is tuple and isinstance(value, list | tuple):
        inner = typing.get_args(hint)
        if inner and inner[-1] is not Ellipsis and len(inner) != len(value):
            raise ValueError(f"{where}: must be a list of {len(inner)} values, not {len(value)}")
        return tuple(checked(where, item, inner[0]) for item in value) if inner else tuple(value)
    elif origin is list and isinstance(value, list | tuple):
        inner = typing.get_args(hint)
        return [checked(f"{where}.{place}", item, inner[0] if inner else Any) for place, item in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        inner = typing.get_args(hint)
        return {key: checked(f"{where}.{key}", item, inner[1] if inner else Any) for key, item in value.items()}
    elif not isinstance(origin, type) or (
        isinstance(value, origin) and (origin is bool or not isinstance(value, bool))
    ):
        return value
    if origin in (tuple, list):
        raise ValueError(f"{where}: {reprlib.repr(value)} is not a list, e.g. [{reprlib.repr(value)}]")
    kind = getattr(hint, "__name__", str(hint))
    raise ValueError(f"{where}: {reprlib.repr(value)} is not a {KINDS.get(kind, kind)}")
