"""The closed tables: names, options, and the kinds of their values."""

import inspect
from typing import Any, Literal

import pytest
import torch

from img2img.registry import LARGEST, TABLES, bounded, checked, lookup, nearest, options, part


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in TABLES.items() for name in table])
def test_every_name_leads_somewhere(kind, name):
    found = lookup(kind, name)
    assert found is not None
    for key, parameter in options(kind, name).items():
        assert kind == "task" or parameter.annotation is not inspect.Parameter.empty, f"{key} has no type"
    if callable(found):
        assert inspect.getdoc(found), "no docstring"


def test_the_nearest_name_is_offered():
    assert nearest("pnsr", ["psnr", "ssim"]) == "; did you mean 'psnr'?"
    assert nearest("zzz", ["psnr"]) == ""
    with pytest.raises(ValueError, match="unknown network 'srresnt'; did you mean 'srresnet'"):
        part("network", {"type": "srresnt"})
    with pytest.raises(ValueError, match="unknown adversarial 'zzz'; known: .*hinge, "):
        part("adversarial", {"type": "zzz"})
    with pytest.raises(ValueError, match="penalty gradient_penalty: unknown option 'traget'; did you mean 'target'"):
        part("penalty", {"type": "gradient_penalty", "traget": 1})
    with pytest.raises(ValueError, match="fidelity l1: unknown option 'target'; it takes none"):
        part("fidelity", {"type": "l1", "target": 1})
    with pytest.raises(ValueError, match="network mlp: option 'inputs' has no default"):
        part("network", {"type": "mlp"})


@pytest.mark.parametrize("spec", [None, "l1", [], {}, {"type": 3}, {"type": ["l1"]}])
def test_a_spec_is_a_table_with_a_type(spec):
    with pytest.raises(ValueError, match="fidelity: expected a table with a 'type'"):
        part("fidelity", spec)


def test_what_part_returns():
    real = torch.ones(2, 3, 4, 4)
    charbonnier = part("fidelity", {"type": "charbonnier", "epsilon": 0.5})
    assert charbonnier(real, real).tolist() == [0.5, 0.5]
    assert part("adversarial", {"type": "hinge"}).generator(real, real).equal(-real)
    assert part("network", {"type": "mlp", "inputs": 3, "width": 5}).layers[1].weight.shape == (5, 3)
    # A default is used where the part knows it and the page is silent.
    net = part("network", {"type": "patchgan", "width": 2}, channels=1, size=3)
    assert net.layers[0].in_channels == 1
    net = part("network", {"type": "patchgan", "width": 2, "channels": 3}, channels=1)
    assert net.layers[0].in_channels == 3
    assert part("fidelity", {"type": "l1"}, range=(0, 1))(real, real * 0).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, 3),
        (3, float, 3.0),
        ("a", str, "a"),
        (True, bool, True),
        ([1, 2], tuple[float, float], (1.0, 2.0)),
        ([1, "b"], tuple[str | int, ...], (1, "b")),
        ([], tuple[str, ...], ()),
        (None, dict | None, None),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ([{"a": 1}], list[dict], [{"a": 1}]),
        ("x", Literal["x", "y"], "x"),
        (object, Any, object),
        ("3", int | str, "3"),
    ],
)
def test_checked(value, hint, expected):
    found = checked("here", value, hint)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        (1.5, int, "1.5 is not a whole number"),
        (True, int, "True is not a whole number"),
        (True, float, "True is not a number"),
        (1, bool, "1 is not a true or false"),
        ("1", float, "'1' is not a number"),
        (1, str, "1 is not a text"),
        (None, int, "None is not a whole number"),
        (float("nan"), float, "finite"),
        (float("-inf"), float, "finite"),
        (2**63, int, "too large"),
        (10**400, float, "finite"),
        ([1], tuple[float, float], "a list of 2 values, not 1"),
        ([1, "x"], tuple[float, ...], "'x' is not a number"),
        ("ab", tuple[str, ...], "is not a"),
        ([1], list[str], "here.0: 1 is not a text"),
        ({"a": "x"}, dict[str, int], "here.a: 'x' is not a whole number"),
        ([], dict, "is not a table"),
        ("xx", Literal["x", "y"], "did you mean 'x'"),
        ([], Literal["x"], "is none of x"),
        (1.5, int | str, "1.5 is not a"),
        ("x" * 10**6, float, "is not a number"),
    ],
)
def test_checked_refuses(value, hint, words):
    with pytest.raises(ValueError, match=r"^here") as caught:
        checked("here", value, hint)
    assert words in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "mlp", "inputs": 3, "width": 2**40},
        {"type": "mlp", "inputs": 2**62, "width": 2**62},
        {"type": "mlp", "inputs": 3, "width": 1, "depth": 2**40},
        {"type": "mlp", "inputs": -3},
        {"type": "srresnet", "width": 10**9},
        {"type": "srresnet", "width": 2, "blocks": 10**12},
        {"type": "srresnet", "scale": 5},
        {"type": "srresnet", "width": -1},
        {"type": "fast", "width": 2, "depth": 10**12},
        {"type": "fast", "width": 2, "expand": 10**12},
        {"type": "fast", "width": 2, "scale": 10**6},
        {"type": "fast", "width": 2, "scale": 0},
        {"type": "fast", "depth": -1},
        {"type": "unet", "width": 2, "depth": 10**12},
        {"type": "unet", "width": 2, "depth": -1},
        {"type": "unet", "width": 2, "depth": 100},
        {"type": "unet", "width": 10**9},
        {"type": "unet", "size": 65536 * 2 + 1},
        {"type": "unet", "width": 2, "dropout": 2.0},
        {"type": "patchgan", "width": 2, "layers": 10**12},
        {"type": "patchgan", "width": 2, "layers": -1},
        {"type": "dcgan_generator", "size": 10**15},
        {"type": "dcgan_generator", "latent": 10**15},
        {"type": "dcgan_discriminator", "size": 0},
        {"type": "srgan_discriminator", "size": 2**30},
        {"type": "srgan_discriminator", "size": -16},
        {"type": "srgan_discriminator", "hidden": 2**50},
    ],
    ids=str,
)
def test_networks_that_no_machine_holds_are_refused_at_once(spec):
    with pytest.raises(ValueError, match="network"):
        part("network", spec)


def test_bounded():
    assert LARGEST > 10**9
    with bounded(20):
        torch.nn.Linear(3, 5)
    with pytest.raises(ValueError, match="make it smaller"), bounded(19):
        torch.nn.Linear(3, 5)
    torch.nn.Linear(3, 500)  # the limit went with its block
