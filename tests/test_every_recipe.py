"""What comes free with a page: it builds, learns, is saved and comes back, and keeps its contract."""

import json
import tomllib
from dataclasses import replace

import pytest
import torch
from torch import nn

from img2img import checkpoint
from img2img.recipe import Recipe, names, read
from img2img.registry import lookup, options, part
from img2img.systems.system import build, restore
from img2img.trainer import Trainer

NAMES = names("models", ".toml")
SIDE = {"upscale": 32, "translate": 32, "synthesize": 16}
DATA = {"upscale": "photos", "translate": "pairs", "synthesize": "squares"}
LABELLED = {  # tasks that learn from other data than their verb's
    "cogan": "pairs",
    "cogan_labelled": "domains",
    "conditional": "classes",
    "dtn": "domains",
    "infogan": "classes",
    "pixelda": "domains",
    "semi_supervised": "classes",
    "semi_supervised_autoencoder": "classes",
    "supervised_autoencoder": "classes",
    "structure_style": "pairs",
    "text": "captioned",
}
SMALL = {"width": 4, "widest": 8, "blocks": 2, "hidden": 8, "latent": 6, "patches": 16}


def verb(recipe):
    return lookup("task", recipe.task).verb


class Maps(nn.Module):
    """Stands for a pretrained network that would have to be fetched."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)])

    def forward(self, x):
        found = []
        for layer in self.layers:
            x = layer(x).relu()
            found.append(x)
        return found


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    for place in ("fidelity.perceptual", "networks.markovian"):
        monkeypatch.setattr(f"img2img.{place}.features", lambda *_: Maps().eval().requires_grad_(False))


def small(name):
    """Return a page with its own game, at width 4 and on small images."""
    recipe = read(name)
    changes = {"train.batch": 2, "train.workers": 0}
    if not recipe.data.points:
        changes["data.size"] = SIDE[verb(recipe)]
    if recipe.data.labels:
        changes["data.labels"] = 0  # all: small folders have few
    for role, spec in recipe.networks.items():
        known = SMALL | ({"depth": 2} if spec["type"] in ("fast", "mlp") else {})
        known |= {"attention": 8} if spec.get("attention") else {}  # a side that small images have
        changes |= {f"networks.{role}.{key}": v for key, v in known.items() if key in options("network", spec["type"])}
    return replace(recipe.override(changes), init={})


@pytest.fixture
def trainer(request, tmp_path):
    def make(name):
        recipe = small(name)
        folder = [] if recipe.data.points else request.getfixturevalue(LABELLED.get(recipe.task, DATA[verb(recipe)]))
        alone = folder and not isinstance(folder, list)
        folder = folder / "train" if alone and (folder / "train").is_dir() else folder
        return Trainer(recipe, folder, tmp_path, device="cpu", precision="fp32", progress=False)

    return make


@pytest.mark.parametrize("name", NAMES)
def test_page_survives_toml_and_json(name):
    recipe = read(name)
    assert Recipe.parse(tomllib.loads(recipe.toml())) == recipe
    assert Recipe.parse(json.loads(json.dumps(recipe.page()))) == recipe
    assert recipe.name == name and recipe.about and recipe.paper.startswith("https://")


@pytest.mark.parametrize("name", NAMES)
def test_two_steps(name, trainer):
    """Every parameter of a phase's network gets a finite gradient, and nothing else moves."""
    run = trainer(name)
    apply, phases = run._apply, []

    def watched(phase, parameters):
        phases.append(phase)
        roles = run.system.roles(phase)
        for key, parameter in run.system.named_parameters():
            if key.split(".")[0] not in roles:
                continue
            # A network that grows has levels that rest.
            rests = hasattr(getattr(run.system, key.split(".")[0]), "set_progress")
            assert parameter.requires_grad
            assert parameter.grad is not None or rests, f"{phase}.{key} learns nothing"
            assert rests or torch.isfinite(parameter.grad).all(), f"{phase}.{key}"
        before = {key: value.detach().clone() for key, value in run.system.named_parameters()}
        found = apply(phase, parameters)
        moved = {
            key.split(".")[0] for key, value in run.system.named_parameters() if not torch.equal(value, before[key])
        }
        assert moved == set(roles)
        others = [p for key, p in run.system.named_parameters() if key.split(".")[0] not in roles]
        assert not any(p.requires_grad for p in others)
        return found

    run._apply = watched
    batches = run._batches()
    for _ in range(2):
        found = run._advance(batches)
        assert found and all(torch.isfinite(value) for value in found.values()), found
    assert phases == [phase for phase, repeats in run.recipe.schedule.items() for _ in range(repeats)] * 2
    terms = " ".join(found)
    specs = run.recipe.penalty + run.recipe.fidelity + run.recipe.matching + run.recipe.weight_penalty
    wanted = {spec["type"] for spec in specs if spec.get("every", 1) == 1}
    wanted |= {"consensus"} if run.recipe.consensus else set()
    assert all(name in terms for name in wanted | ({"adversarial"} if run.recipe.adversarial else set()))


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_is_the_same(name, trainer, tmp_path):
    run = trainer(name)
    run._advance(run._batches())
    for path, slim in ((tmp_path / "last.safetensors", False), (tmp_path / "best.safetensors", True)):
        run.save(path, slim=slim)
        system = restore(str(path))
        assert system.recipe == run.recipe
        given, averaged = inputs(run.recipe, 2), run._averaged()
        system.to(memory_format=run.layout)  # another layout may add up in another order
        with torch.no_grad():
            assert torch.equal(system.infer(given), averaged.infer(given))
        for role in system.inference:
            ours, theirs = getattr(averaged, role).state_dict(), getattr(system, role).state_dict()
            assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    whole = checkpoint.load(tmp_path / "last.safetensors")[0]
    again = trainer(name)  # resumes from the folder
    for key, value in again.system.state_dict().items():
        assert torch.equal(value, whole[key]), key
    again.save(tmp_path / "again.safetensors")
    theirs, header = checkpoint.load(tmp_path / "again.safetensors")
    assert theirs.keys() == whole.keys() and header == checkpoint.header(tmp_path / "last.safetensors")
    assert all(torch.equal(value, whole[key]) for key, value in theirs.items())


def inputs(recipe, count):
    generator = torch.Generator().manual_seed(0)
    if verb(recipe) == "synthesize":
        network = recipe.networks.get("structure", recipe.networks["generator"])  # what is given latents
        latent = part("network", network, channels=3, size=recipe.data.size).latent
        return torch.randn(count, latent, generator=generator)
    side, low = (32, -1) if verb(recipe) == "translate" else (11, 0)
    depth = recipe.data.input_channels or recipe.data.channels
    return torch.rand(count, depth, side, side, generator=generator) * (1 - low) + low


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_infer_keeps_its_contract(name, channels):
    recipe = small(name)
    channels = 2 if recipe.data.points else channels
    recipe = recipe.override({"data.channels": channels})
    torch.manual_seed(0)
    system = build(recipe).eval()
    with torch.no_grad():
        for network in system.children():
            for parameter in network.parameters():
                parameter.mul_(3)  # loud enough to leave the range, were it not kept
        for given in (inputs(recipe, 3), inputs(recipe, 1)):
            found = system.infer(given)
            side = given.shape[-1] * recipe.data.scale if verb(recipe) == "upscale" else recipe.data.size
            assert found.shape == (len(given), channels, side, side)
            assert found.dtype == torch.float32 and torch.isfinite(found).all()
            low, high = system.span
            assert low <= found.min() and found.max() <= high and found.max() > found.min()
            assert torch.equal(found, system.infer(given))
    assert recipe.data.points or (low, high) == ((0, 1) if verb(recipe) == "upscale" else (-1, 1))


@pytest.mark.parametrize("name", NAMES)
def test_bf16(name):
    """Under autocast every loss is float32 and finite."""
    recipe = small(name)
    torch.manual_seed(0)
    system = build(recipe).train()
    side, given = recipe.data.size, recipe.data.size // recipe.data.scale
    channels = recipe.data.channels
    batch = {name: torch.rand(2, channels, side, side) for name in ("real", "labelled", "target", "a", "b")}
    batch["input"] = torch.rand(2, recipe.data.input_channels or channels, given, given)
    batch["source"] = torch.rand(2, recipe.data.input_channels or channels, side, side)
    batch["label"] = torch.tensor([1, 0])
    batch["text"] = batch["read"] = torch.randint(1, 4096, (2, 96))
    batch["box"] = torch.tensor([[0, 0, 0.5, 0.5], [0.2, 0.3, 0.9, 0.8]])
    batch["points"] = torch.rand(2, 4, 2)
    for phase in recipe.schedule:
        with torch.autocast("cpu", torch.bfloat16):
            found = system.losses(phase, batch, 0)
        assert found
        for key, value in found.items():
            assert value.shape == (2,) and value.dtype == torch.float32 and torch.isfinite(value).all(), key


@pytest.mark.parametrize("name", ["cyclegan", "cut"])
def test_sizes_that_translators_cannot_halve_are_told(name):
    with pytest.raises(ValueError, match="data.size = 50 must be a multiple of 4, .*use 48 or 52"):
        build(small(name).override({"data.size": 50}))


@pytest.mark.parametrize("name", NAMES)
def test_layout_is_that_of_the_data(name):
    """What the doctor is told: partners, two sets, or images."""
    recipe = read(name)
    data = LABELLED.get(recipe.task, DATA[verb(recipe)])
    layout = lookup("task", recipe.task).layout
    assert (layout == "") == (data not in ("pairs", "domains")) and (layout != "paired" or data == "pairs")
