"""Recipes: a system as one page of data, from TOML, JSON or a checkpoint's header, checked before anything runs."""

import datetime
import json
import math
import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from img2img import checkpoint
from img2img.registry import TABLES, checked, lookup, nearest, options


def root(name: str) -> Path:
    """Return the shelf ``models``, ``datasets`` or ``weights``: inside the wheel, else beside the package."""
    inside = Path(str(files("img2img"))) / name
    return inside if inside.is_dir() else Path(__file__).parent.parent / name


@dataclass
class Data:
    """What the system sees: crop side in pixels, scale factor, channels, the degradation that makes inputs, flips.

    ``toy`` stands for a distribution whose modes are known; see `img2img.data.toys`.
    """

    size: int = 64
    channels: int = 3
    input_channels: int = 0
    scale: int = 1
    degradation: dict | None = None
    toy: Literal["", "ring-8", "grid-25", "stacked_digits"] = ""
    direction: Literal["ab", "ba"] = "ab"
    augment: dict | None = None
    jitter: bool = True
    flip: bool = True
    rotate: bool = False
    flat: float = 0.0
    labels: int = 0

    @property
    def points(self) -> bool:
        """Whether the data are points of a plane, drawn from a formula."""
        return self.toy in ("ring-8", "grid-25")


@dataclass
class Optimizer:
    """How networks learn. A table of a phase's name overrides keys for it.

    ``decay`` shapes the rate over the run, once the share ``decay_from`` of it is over.
    """

    type: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    lr: float = 2e-4
    betas: tuple[float, ...] = (0.9, 0.99)
    weight_decay: float = 0.0
    decay: Literal["constant", "cosine", "linear"] = "constant"
    decay_from: float = 0.0
    warmup_images: int = 0


@dataclass
class Unroll:
    """Steps that the discriminator takes ahead while the generator learns: how many, at which rate, by which rule."""

    steps: int = 5
    rate: float = 1e-3
    optimizer: Literal["sgd", "adam"] = "sgd"
    betas: tuple[float, float] = (0.5, 0.999)


@dataclass
class Train:
    """The run: images to see in all, batch size, EMA decay and gradient clipping (0: none), lengths in images.

    ``patience``: stop after so many validations without a better one; 0: never.
    """

    images: int = 100_000
    batch: int = 16
    accumulate: int = 1
    ema: float = 0.999
    clip_gradient: float = 0.0
    checkpoint_images: int = 20_000
    validate_images: int = 20_000
    log_images: int = 1_000
    workers: int = 0
    patience: int = 0


@dataclass
class Validate:
    """What is measured on the validation images, and which of it chooses ``best``; 0 ``images``: all there are."""

    metrics: tuple[str, ...] = ()
    best: str = ""
    images: int = 16
    size: int = 256


BOUNDS = {
    "data.size": (1, 65536),
    "data.channels": (1, 3),
    "data.input_channels": (0, 64),
    "data.scale": (1, 64),
    "data.labels": (0, math.inf),
    "train.images": (1, math.inf),
    "train.batch": (1, 2**20),
    "train.accumulate": (1, 2**20),
    "train.ema": (0, 1),
    "train.clip_gradient": (0, math.inf),
    "train.checkpoint_images": (1, math.inf),
    "train.validate_images": (1, math.inf),
    "train.log_images": (1, math.inf),
    "train.workers": (0, 1024),
    "train.patience": (0, math.inf),
    "validate.images": (0, math.inf),
    "validate.size": (16, 65536),
}
SECTIONS = {"data": Data, "train": Train, "unroll": Unroll, "validate": Validate}
TERMS = {
    "penalty": ("penalty", ("weight", "every")),
    "weight_penalty": ("weight_penalty", ("weight", "every", "on")),
    "matching": ("matching", ("weight",)),
    "augment": ("augment_critic", ()),
    "fidelity": ("fidelity", ("weight", "every", "on")),
}
"""Lists of parts on a page: the registry's table, and what the page says of each besides the part's own options."""


@dataclass
class Recipe:
    """One system. Every key of a page is a field here; see ``models/README.md`` for the list with examples."""

    name: str
    task: str
    networks: dict[str, dict]
    paper: str = ""
    about: str = ""
    deviations: list[str] = field(default_factory=list)
    schedule: dict[str, int] = field(default_factory=lambda: {"generator": 1})
    optimizer: dict = field(default_factory=dict)
    adversarial: dict | None = None
    penalty: list[dict] = field(default_factory=list)
    weight_penalty: list[dict] = field(default_factory=list)
    matching: list[dict] = field(default_factory=list)
    augment: list[dict] = field(default_factory=list)
    pool: int = 0
    unroll: Unroll | None = None
    consensus: float | None = None
    fidelity: list[dict] = field(default_factory=list)
    clip_weights: dict[str, float] = field(default_factory=dict)
    init: dict[str, str] = field(default_factory=dict)
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    validate: Validate = field(default_factory=Validate)
    measured: list[dict] = field(default_factory=list)

    @classmethod
    def parse(cls, page: dict[str, Any], where: str = "recipe") -> "Recipe":
        """Check a page and return it as a recipe.

        Raises:
            ValueError: an unknown or missing key, or a value of the wrong kind; the message names page and key.
        """
        page = _plain(page, where)
        known = {item.name: item for item in fields(cls)}
        for key in page:
            if key not in known:
                raise ValueError(f"{where}: unknown key {key!r}{nearest(key, known)}")
        for key, item in known.items():
            if item.default is MISSING and item.default_factory is MISSING and key not in page:
                raise ValueError(f"{where}: key {key!r} is missing")
            if key in page:
                page[key] = checked(f"{where}: {key}", page[key], dict if key in SECTIONS else item.type)
        for key, section in SECTIONS.items():
            if key in page:
                page[key] = _section(section, page[key], f"{where}: {key}")
        recipe = cls(**page)
        recipe._check(where)
        return recipe

    def _check(self, where: str) -> None:
        try:
            lookup("task", self.task)
        except ValueError as error:
            raise ValueError(f"{where}: task: {error}") from None
        for role, spec in self.networks.items():
            if "type" not in spec:
                others = [name for name in self.networks if name != role]
                raise ValueError(f"{where}: networks.{role} has no 'type'{nearest(role, others)}")
            _spec("network", spec, f"{where}: networks.{role}")
        for phase, repeats in self.schedule.items():
            if phase not in self.networks:
                raise ValueError(
                    f"{where}: schedule names {phase!r}, which is no network{nearest(phase, self.networks)}"
                )
            if not 1 <= repeats <= 1000:
                raise ValueError(f"{where}: schedule.{phase} is {repeats}; it must be a number of steps, 1 to 1000")
            plan = self.optimizer_for(phase, where)
            for key, high in (("lr", 1e6), ("weight_decay", 1e6), ("warmup_images", math.inf), ("decay_from", 0.999)):
                if not 0 <= getattr(plan, key) <= high:
                    limit = " and below 1" if high < 1 else ""
                    raise ValueError(f"{where}: optimizer.{key} is {getattr(plan, key)}; it must be 0 or more{limit}")
            if len(plan.betas) != 2 or not all(0 <= beta < 1 for beta in plan.betas):
                raise ValueError(f"{where}: optimizer.betas must be two numbers from 0 to below 1, e.g. [0.9, 0.99]")
        if not self.schedule:
            raise ValueError(f"{where}: schedule is empty; name the networks that learn, e.g. {{ generator = 1 }}")
        for key in self.optimizer:
            if isinstance(self.optimizer[key], dict) and key not in self.schedule:
                raise ValueError(f"{where}: optimizer.{key} is no phase of the schedule{nearest(key, self.schedule)}")
        game = "discriminator" in self.schedule or self.task in ("generate", "pyramid", "conditional_pyramid")
        if self.adversarial is None and game:
            raise ValueError(f"{where}: key 'adversarial' is missing; it says what the discriminator learns")
        if self.adversarial is not None and "discriminator" not in self.networks:
            raise ValueError(f"{where}: 'adversarial' needs a network 'discriminator' under [networks]")
        if self.adversarial is not None and "discriminator" not in self.schedule:
            raise ValueError(f"{where}: the schedule has no discriminator, which would never learn; give it steps")
        if self.adversarial is None and not self.fidelity:
            raise ValueError(f"{where}: neither 'adversarial' nor 'fidelity' says what to learn")
        if self.adversarial is not None:
            _spec("adversarial", self.adversarial, f"{where}: adversarial", extra=("weight",))
        for key, (kind, extra) in TERMS.items():
            for item in getattr(self, key):
                _spec(kind, item, f"{where}: {key}", extra)
        for item in self.weight_penalty:
            if (on := item.get("on", "generator")) not in self.networks:
                raise ValueError(f"{where}: weight_penalty.on = {on!r} is no network{nearest(on, self.networks)}")
        if self.adversarial is None:
            for key in ("penalty", "matching", "augment", "pool", "unroll", "consensus"):
                if getattr(self, key):
                    raise ValueError(f"{where}: {key!r} is part of a game; it needs 'adversarial'")
        if self.pool < 0:
            raise ValueError(f"{where}: pool is {self.pool}; it must be a number of images, 0 or more")
        if self.consensus is not None and self.consensus <= 0:
            raise ValueError(f"{where}: consensus must be over 0")
        if self.unroll and not (1 <= self.unroll.steps <= 100 and self.unroll.rate > 0):
            raise ValueError(f"{where}: unroll.steps must be 1 to 100, and unroll.rate over 0")
        if self.data.degradation is not None:
            _spec("degradation", self.data.degradation, f"{where}: data.degradation")
        if self.data.augment is not None:
            _spec("augment", {"type": "paired"} | self.data.augment, f"{where}: data.augment")
        for key in (*self.clip_weights, *self.init):
            if key not in self.networks:
                raise ValueError(f"{where}: {key!r} is no network of the recipe{nearest(key, self.networks)}")
        for metric in self.validate.metrics:
            if metric.split("[")[0] not in TABLES["metric"]:
                raise ValueError(f"{where}: unknown metric {metric!r}{nearest(metric, TABLES['metric'])}")
        if self.validate.best and self.validate.metrics and self.validate.best not in self.validate.metrics:
            raise ValueError(f"{where}: validate.best is {self.validate.best!r}, which is not in validate.metrics")
        for role, limit in self.clip_weights.items():
            if limit <= 0:
                raise ValueError(f"{where}: clip_weights.{role} must be over 0")
        for key, (low, high) in BOUNDS.items():
            section, name = key.split(".")
            value = getattr(getattr(self, section), name)
            if not low <= value <= high:
                raise ValueError(
                    f"{where}: {key} is {value}; it must be {low} or more"
                    + (f" and at most {high}" if high < math.inf else "")
                )
        if self.train.ema == 1:
            raise ValueError(f"{where}: train.ema must be below 1")
        if self.data.points and (self.data.channels, self.data.size) != (2, 1):
            raise ValueError(f"{where}: data.toy = {self.data.toy!r} makes points: set data.channels = 2, size = 1")
        if self.data.channels == 2 and not self.data.points:
            raise ValueError(f"{where}: data.channels is 1 or 3")
        if self.data.toy == "stacked_digits" and self.data.channels != 3:
            raise ValueError(f"{where}: stacked digits have data.channels = 3")

    def optimizer_for(self, phase: str, where: str = "recipe") -> Optimizer:
        """Return the optimizer's settings for one phase: the page's, overridden by the phase's own table."""
        shared = {key: value for key, value in self.optimizer.items() if not isinstance(value, dict)}
        own = self.optimizer.get(phase, {})
        if not isinstance(own, dict):
            raise ValueError(f"{where}: optimizer.{phase} must be a table, since {phase!r} is a phase of the schedule")
        return _section(Optimizer, shared | own, f"{where}: optimizer")

    def page(self) -> dict[str, Any]:
        """Return the recipe as plain data, without empty keys: what a checkpoint carries and ``show`` prints."""
        return {key: value for key, value in _plain(asdict(self)).items() if value not in ("", None, {}, [])}

    def toml(self) -> str:
        """Return the recipe as a TOML page."""
        import tomli_w

        return tomli_w.dumps(self.page())

    def override(self, changes: dict[str, Any] | list[str]) -> "Recipe":
        """Return a copy with keys replaced, e.g. ``{"networks.generator.width": 32}`` or ``["train.batch=8"]``.

        A number picks an item of a list (``penalty.0.weight=1``). Values in strings are read as TOML, else as text.

        Raises:
            ValueError: a key leads nowhere, or the result is no valid recipe.
        """
        if not isinstance(changes, dict):
            pairs = [change.partition("=") for change in changes]
            bad = [key for key, sign, _ in pairs if not sign]
            if bad:
                raise ValueError(f"--set {bad[0]}: expected KEY=VALUE, e.g. networks.generator.width=32")
            changes = {key: _value(text) for key, _, text in pairs}
        page = _plain(asdict(self))
        for key, value in changes.items():
            *path, last = key.split(".")
            here = page
            try:
                for step in path:
                    here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
                    if here is None:
                        raise KeyError(step)
                if isinstance(here, list):
                    here[int(last)] = value
                else:
                    here[last] = value
            except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"--set {key}: no such key in {self.name}{nearest(key.split('.')[0], page)}"
                ) from error
        return Recipe.parse(page, self.name)


def read(source: str | Path) -> Recipe:
    """Return the recipe that a name, a TOML or JSON file, a checkpoint or a run folder stands for.

    Raises:
        ValueError: there is no such thing, or it is no valid recipe.
    """
    path = locate(source)
    if path.suffix == ".safetensors":
        page = checkpoint.header(path)["recipe"]
    else:
        try:
            text = path.read_text(encoding="utf-8")
            page = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except (OSError, RecursionError, ValueError) as error:
            raise ValueError(f"{path}: not a readable recipe: {error}") from error
        if not isinstance(page, dict):
            raise ValueError(f"{path}: a recipe is a table of keys, not a {type(page).__name__}")
    return Recipe.parse(page, str(source))


def locate(source: str | Path, weights: bool = False) -> Path:
    """Return the file behind a name of the catalogue, a weight's name, a file or a run folder.

    Args:
        source: e.g. ``"srgan"`` (a page), ``"srgan.x4"`` (a weight), ``"runs/mine"``, ``"page.toml"``.
        weights: only a file with weights will do.

    Raises:
        ValueError: nothing of that name; the nearest known one is offered.
    """
    path = Path(source)
    if path.is_dir():
        for name in ("best.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
    if path.is_file():
        return path
    shelves = [("weights", ".safetensors")] + ([] if weights else [("models", ".toml")])
    for shelf, suffix in shelves:
        candidate = root(shelf) / f"{source}{suffix}"
        if candidate.is_file() and candidate.parent == root(shelf):
            return candidate
    if path.is_dir():
        raise ValueError(f"{path}: a folder without best.safetensors or last.safetensors; train into it first")
    known = names("weights", ".safetensors") + ([] if weights else names("models", ".toml"))
    what = "weight" if weights else "model"
    raise ValueError(
        f"no {what}, file or run folder called {str(source)!r}{nearest(str(source), known) or '; see: img2img models'}"
    )


def names(shelf: str, suffix: str, pattern: str = "*") -> list[str]:
    """Return the names on a shelf, sorted."""
    found = (path.name.removesuffix(suffix) for path in root(shelf).glob(f"*{suffix}"))
    return sorted(name for name in found if fnmatch(name, pattern))


def _section(section: type, given: dict[str, Any], where: str) -> Any:
    known = {item.name: item for item in fields(section)}
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}{nearest(key, known) or '; it takes ' + ', '.join(known)}")
        given[key] = checked(f"{where}.{key}", value, known[key].type)
    return section(**given)


def _spec(kind: str, spec: Any, where: str, extra: tuple[str, ...] = ()) -> None:
    if not isinstance(spec.get("type"), str):
        raise ValueError(f"{where}: expected a table with a 'type', e.g. {{ type = {next(iter(TABLES[kind]))!r} }}")
    try:
        takes = options(kind, spec["type"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    own = {"weight": float, "every": int, "on": str}
    known = {key: item.annotation for key, item in takes.items()} | {key: own[key] for key in extra} | {"type": str}
    for key, value in spec.items():
        if key not in known:
            raise ValueError(
                f"{where}: {spec['type']} has no option {key!r}"
                + (nearest(key, known) or "; it takes " + ", ".join(known))
            )
        checked(f"{where}.{key}", value, known[key])
    if spec.get("every", 1) < 1:
        raise ValueError(f"{where}.every must be 1 or more")


def _plain(value: Any, where: str = "recipe", depth: int = 0) -> Any:
    """Return a page as a checkpoint's JSON would give it back: without nulls, lists for tuples, text for dates."""
    if depth > 20:
        raise ValueError(f"{where}: tables and lists are nested too deeply")
    if isinstance(value, dict):
        return {str(key): _plain(item, where, depth + 1) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item, where, depth + 1) for item in value if item is not None]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, int) and not -(2**63) < value < 2**63:
        raise ValueError(f"{where}: a number is too large")
    if not isinstance(value, str | int | float):
        raise ValueError(f"{where}: a {type(value).__name__} is no value of a recipe")
    return value


def _value(text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return found["value"] if len(found) == 1 else text  # more than one line is no value
