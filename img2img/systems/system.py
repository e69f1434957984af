"""What every system shares: networks by role, terms by name, and the two halves of an adversarial game."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from img2img import checkpoint
from img2img.adversarial.augment import Augmentations
from img2img.adversarial.dynamics import borrowed, consensus, unroll
from img2img.adversarial.pool import Pool
from img2img.recipe import TERMS, Recipe, locate
from img2img.registry import bounded, lookup, part

Critic = Callable[[Tensor], Tensor]


class Term(NamedTuple):
    """One summand of a loss: name in the log, function, weight, every how many steps it counts, what it compares."""

    name: str
    function: Callable[..., Tensor]
    weight: float
    every: int
    on: str

    @classmethod
    def build(cls, kind: str, spec: dict[str, Any], on: str = "", **defaults: Any) -> "Term":
        """Build a recipe's term of the table ``kind``; ``on`` is what it compares where the page says nothing."""
        own = {key: value for key, value in spec.items() if key not in ("weight", "every", "on")}
        chosen = spec.get("on", on)
        name = spec["type"] if chosen == on else f"{chosen}_{spec['type']}"
        weight, every = float(spec.get("weight", 1.0)), int(spec.get("every", 1))
        return cls(name, part(kind, own, **defaults), weight, every, chosen)


class Trial(NamedTuple):
    """What a system made of validation data, all (N, C, H, W) in its span; None where there is no such thing.

    ``target`` is what the output should be, sample by sample; ``real`` what outputs should be like as a set. Not images
    are, of what each output should show, ``label``, the class, (N,), and ``text``, the pieces of the caption, (N, L),
    and ``points``, where it should reach to, (N, 4, 2); and ``right``, (N,), 1 where the system's own classifier read
    an image of the batch right, else 0.
    """

    output: Tensor
    input: Tensor | None = None
    target: Tensor | None = None
    real: Tensor | None = None
    label: Tensor | None = None
    right: Tensor | None = None
    text: Tensor | None = None
    points: Tensor | None = None


class Judgement(nn.Module):
    """A critic as a module that holds the network behind it, so that it can run on other weights of that network.

    Args:
        network: a discriminator, or several; for the other player, a generator.
        call: what runs it.
    """

    def __init__(self, network: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network = network
        # Wrapped: a module would be registered twice, and its weights not come back when others were lent to it.
        self.call = lambda *inputs: call(*inputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return what ``call`` does."""
        return self.call(*inputs)


class System(nn.Module):
    """A game as a recipe describes it.

    A subclass says what each phase minimises (``losses``), what the trained system does (``infer``) and how it is
    tried out on validation data (``trial``); it never asks which loss or network was chosen. The networks are
    attributes by role: ``self.generator``, ``self.discriminator``.

    Attributes:
        inference: roles that the trained system consists of; their averages are kept.
        verb: the verb that uses it: "upscale", "translate" or "synthesize".
        span: range of its images.
        layout: how its data lie: "" (images), "paired" (two sides, each image with a partner), "unpaired" (two sets).
        learners: roles that learn together in a phase; elsewhere a phase is the role that learns in it.
        comparisons: what a page's fidelity terms can compare (their ``on``); the first is the default.
        simultaneous: whether its game is played as one vector field, as a page's ``consensus`` needs.
        pooled: whether its discriminators judge images alone, of which a page's ``pool`` can keep earlier ones.
    """

    inference: tuple[str, ...] = ("generator",)
    verb: str = "translate"
    span: tuple[float, float] = (-1.0, 1.0)
    layout: str = ""
    learners: dict[str, tuple[str, ...]] = {}
    comparisons: tuple[str, ...] = ()
    simultaneous: bool = False
    pooled: bool = False

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.classes: list[str] = []  # as the training images number them, for all that come later
        self.seen: dict[str, Tensor] = {}
        self._made: dict[str, list[tuple[Any, Any]]] = {}
        for role, spec in recipe.networks.items():
            if hasattr(self, role) or not role.isidentifier():
                raise ValueError(f"{recipe.name}: a network cannot be called {role!r}")
            self.add_module(role, self.network(role, spec))
        multiple = max((getattr(module, "multiple", 1) for module in self.modules()), default=1)
        if self.verb == "translate" and recipe.data.size % multiple:
            near = recipe.data.size // multiple * multiple
            raise ValueError(
                f"{recipe.name}: data.size = {recipe.data.size} must be a multiple of {multiple}, which the networks "
                f"halve and double by; use {near or multiple} or {near + multiple}"
            )
        for role in self.inference:
            if role not in recipe.networks:
                raise ValueError(f"{recipe.name}: task {recipe.task} needs a network {role!r} under [networks]")
        spec = dict(recipe.adversarial or {})
        self.adversarial_weight = float(spec.pop("weight", 1.0))
        self.adversarial = part("adversarial", spec) if spec else None
        self.penalties = [Term.build("penalty", item) for item in recipe.penalty]
        self.matching = [Term.build("matching", item) for item in recipe.matching]
        # Their state is part of the checkpoint, as that of the adversarial loss.
        self.augment = Augmentations(*(part("augment_critic", item) for item in recipe.augment), span=self.span)
        self.weight_penalties = []
        for item in recipe.weight_penalty:
            watched = getattr(self, item.get("on", "generator"))
            self.weight_penalties.append(Term.build("weight_penalty", item, on="generator", module=watched))
        self.watchers = nn.ModuleList(t.function for t in self.weight_penalties if isinstance(t.function, nn.Module))
        if recipe.consensus and not self.simultaneous:
            raise ValueError(f"{recipe.name}: 'consensus' is not for the task {recipe.task}; use it in generate")
        if recipe.pool and not self.pooled:
            raise ValueError(f"{recipe.name}: 'pool' is not for the task {recipe.task}; drop it")
        if recipe.fidelity and not self.comparisons:
            raise ValueError(f"{recipe.name}: the task {recipe.task} compares no images; drop [[fidelity]]")
        self.fidelity = [
            Term.build("fidelity", item, on=self.comparisons[0], range=self.span) for item in recipe.fidelity
        ]
        self.penalties, self.matching, self.weight_penalties, self.fidelity = map(
            numbered, (self.penalties, self.matching, self.weight_penalties, self.fidelity)
        )
        for term in self.fidelity:
            if term.on not in self.comparisons:
                raise ValueError(
                    f"{recipe.name}: fidelity {term.name}: on = {term.on!r} is none of {', '.join(self.comparisons)}"
                )

    def network(self, role: str, spec: dict[str, Any], **more: Any) -> nn.Module:
        """Return the network of a role with fresh weights; ``more`` are options where it has them and the page not."""
        data = self.recipe.data
        return part(
            "network",
            spec,
            channels=data.channels,
            input_channels=data.input_channels or data.channels,
            size=data.size,
            scale=data.scale,
            **more,
        )

    def depths(self, **controls: Any) -> tuple[int, int]:
        """Return the channels of what goes into the trained system and of what comes out."""
        data = self.recipe.data
        return data.input_channels or data.channels, data.channels

    def roles(self, phase: str) -> tuple[str, ...]:
        """Return the roles that learn in a phase and that the page has networks for."""
        return tuple(role for role in self.learners.get(phase, (phase,)) if role in self.recipe.networks)

    def losses(self, phase: str, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the named terms that ``phase`` minimises, each (N,): their weighted sum's mean is the loss."""
        raise NotImplementedError  # abstract: every system has its own

    def infer(self, inputs: Tensor, **controls: Any) -> Tensor:
        """Return what the trained system makes of a batch."""
        raise NotImplementedError  # abstract: every system has its own

    def trial(self, batch: dict[str, Tensor]) -> dict[str, Trial]:
        """Return what the system makes of a validation batch, one entry a direction ("" where there is only one)."""
        raise NotImplementedError  # abstract: every system has its own

    def fake(self, phase: str, batch: dict[str, Tensor], make: Callable[[], Any], name: str = "fake") -> Any:
        """Return ``make()``; a discriminator's phase gets what the generator's phase made of the same batch, detached.

        So nothing is generated twice where both phases look at one batch, and no gradient leaves the discriminator.
        """
        known = self._made.setdefault(name, [])
        if phase == "discriminator":
            for place, (seen, made) in enumerate(known):
                if seen is batch:
                    del known[: place + 1]
                    return made
            with torch.no_grad():
                return make()
        found = make()
        known.append((batch, found.detach()))
        del known[: -self.recipe.train.accumulate]  # of a step's parts; what no discriminator asked for is let go
        return found

    def latents(self, count: int, device: torch.device) -> Tensor:
        """Draw latents (N, latent) of a generator of noise from torch's generator."""
        return torch.randn(count, self.generator.latent, device=device)

    def past_fakes(self, channels: int | None = None) -> nn.Module:
        """Return what mixes fakes with the page's ``pool`` of earlier ones; without one they stay as they are."""
        data = self.recipe.data
        return Pool(self.recipe.pool, channels or data.channels, data.size) if self.recipe.pool else nn.Identity()

    def advance(self, images: int) -> None:
        """Tell every part that changes over the run how many training images were seen."""
        for module in self.modules():
            if hasattr(module, "set_progress"):
                module.set_progress(images)

    def observe(self, name: str, value: Tensor) -> None:
        """Have the mean of some numbers logged that nothing minimises; of a second game under ``name_2``, and so on."""
        self.seen[unused(name, self.seen)] = value.detach().float().mean()

    def discriminator_terms(self, critic: Critic, real: Tensor, fake: Tensor, step: int) -> dict[str, Tensor]:
        """Return the discriminator's adversarial loss and its penalties, each (N,)."""
        fake, critic = fake.detach(), self.seen_by(critic)
        # In float32: under autocast the exponentials would run in the logits' few bits.
        scores = critic(real).float(), critic(fake).float()
        # Whatever the loss, a useful discriminator puts what is real above what is not; chance is 0.5.
        self.observe("accuracy", (scores[0] > scores[1]).float() + 0.5 * (scores[0] == scores[1]))
        found = {"adversarial": per_sample(self.adversarial.discriminator(*scores))}
        for term in self.penalties:
            if step % term.every == 0:
                found[term.name] = term.weight * term.every * term.function(critic, real, fake)
        neutral = getattr(self.adversarial, "neutral", 0.0)
        for module in self.augment:
            if hasattr(module, "update"):
                module.update(scores[0] - (scores[1] if neutral is None else neutral))
                self.seen["augment"] = module.p.clone()
        if hasattr(self.adversarial, "update"):
            self.adversarial.update(*scores, 1 / self.recipe.train.accumulate)
            self.seen["convergence"] = self.adversarial.convergence.clone()
        return found

    def generator_terms(self, critic: Critic, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Return the generator's adversarial loss and the distances of the discriminator's features, each (N,)."""
        found = self.matching_terms(critic, real, fake)
        critic = self.ahead(critic, real, fake)
        scores = critic(fake).float()
        reference = scores.detach()
        with torch.no_grad():
            if getattr(self.adversarial, "relative", False):
                reference = critic(real).float()
            if len(fake) > 1:
                # How much samples differ from one another, against how much real ones do: 0 is total collapse.
                spread = [images.float().std(0).mean() for images in (fake, real)]
                # A small batch may hold one real image twice.
                self.observe("diversity", (spread[0] / spread[1].clamp(min=1e-6)).clamp(max=2))
        loss = self.adversarial_weight * per_sample(self.adversarial.generator(reference, scores))
        return {"adversarial": loss} | found

    def seen_by(self, critic: Critic) -> Critic:
        """Return a critic of images as the discriminator sees them: changed as the page's ``augment`` says.

        Where a critic sees an input beside what it judges, only the latter changes: choose what keeps places.
        """
        return (lambda images: critic(self.augment(images))) if len(self.augment) else critic

    def matching_terms(self, critic: Critic, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Return the page's terms on the discriminator's features, each (N,).

        Raises:
            ValueError: the critic has no method ``features``.
        """
        if self.matching and not hasattr(critic, "features"):
            raise ValueError(f"{self.recipe.name}: matching needs a discriminator that gives its features")
        return {
            term.name: term.weight * term.function(lambda x: critic.features(self.augment(x)), real, fake)
            for term in self.matching
        }

    def ahead(self, critic: Critic, real: Tensor, fake: Tensor) -> Critic:
        """Return the critic of changed images as it would be after the page's ``unroll`` steps against these fakes."""
        plan, seen = self.recipe.unroll, self.seen_by(critic)
        if plan is None:
            return seen
        judge = Judgement(critic if isinstance(critic, nn.Module) else self.discriminator, seen)
        real, fake = real.float(), fake.float()  # the steps ahead run without autocast

        def loss(network: Critic) -> Tensor:
            return self.adversarial.discriminator(network(real), network(fake)).mean()

        weights = unroll(
            judge, loss, steps=plan.steps, rate=plan.rate, optimizer=plan.optimizer, betas=tuple(plan.betas)
        )
        return borrowed(judge, weights)

    def field_terms(self, critic: Critic, real: Tensor, make: Callable[[], Tensor]) -> dict[str, Tensor]:
        """Return the page's ``consensus``: the length of the game's vector field, the same for all samples, (N,).

        Args:
            critic: as in the other terms.
            real: (N, C, H, W).
            make: makes the fakes with ``self.generator``.
        """
        if not self.recipe.consensus:
            return {}
        players = Judgement(self.discriminator, self.seen_by(critic)), Judgement(self.generator, make)

        def game(discriminator: Critic, generator: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
            scores = discriminator(real), discriminator(generator())
            return self.adversarial.discriminator(*scores).mean(), self.adversarial.generator(*scores).mean()

        return {"consensus": self.recipe.consensus * consensus(game, *players).expand(len(real))}

    def weight_terms(self, phase: str, step: int) -> dict[str, Tensor]:
        """Return the page's penalties on the weights that learn in a phase, scalars."""
        roles = self.roles(phase)
        return {
            term.name: term.weight * term.every * term.function(getattr(self, term.on))
            for term in self.weight_penalties
            if term.on in roles and step % term.every == 0
        }

    def fidelity_terms(self, output: Tensor, target: Tensor, step: int, on: str | None = None) -> dict[str, Tensor]:
        """Return the page's weighted distances for one of the ``comparisons``, each (N,)."""
        return {
            term.name: term.weight * term.every * term.function(output, target)
            for term in self.fidelity
            if step % term.every == 0 and term.on == (on or self.comparisons[0])
        }

    def compares(self, on: str, step: int) -> bool:
        """Return whether a comparison counts in this step, so that what it needs is worth making."""
        return any(term.on == on and step % term.every == 0 for term in self.fidelity)

    def deployed(self, **controls: Any) -> nn.Module:
        """Return the network that does the task, ready for inference; ``controls`` as `infer` takes them.

        Raises:
            ValueError: a control that the system does not have.
        """
        if controls:
            raise ValueError(f"{self.recipe.name}: has no {next(iter(controls))!r} to choose")
        network = getattr(self, self.inference[0])
        return network.deploy() if hasattr(network, "deploy") else network


def unused(name: str, names: Iterable[str]) -> str:
    """Return ``name``, or where it is one of ``names`` the first of name_2, name_3, ... that is not."""
    return next(new for new in chain([name], (f"{name}_{number}" for number in count(2))) if new not in names)


def numbered(terms: list[Term]) -> list[Term]:
    """Return the terms under names of which none comes twice."""
    found: dict[str, Term] = {}
    for term in terms:
        name = unused(term.name, found)
        found[name] = term._replace(name=name)
    return list(found.values())


def only(folders: list[Path], name: str) -> Path:
    """Return the single folder of a list.

    Raises:
        ValueError: there are more or none.
    """
    if len(folders) != 1:
        raise ValueError(f"{name}: learns from one folder, not {len(folders)}; put the images into one")
    return folders[0]


def per_sample(values: Tensor) -> Tensor:
    """Return the mean over everything but the first dimension: (N, ...) -> (N,), in float32."""
    return values.float().flatten(1).mean(1) if values.dim() > 1 else values.float()


def build(recipe: Recipe) -> System:
    """Return the system that a recipe describes, with fresh weights."""
    return part("task", {"type": recipe.task}, recipe=recipe)


def initialise(system: System) -> dict[str, list[str]]:
    """Fill networks from the weights that the recipe's ``init`` names; what does not fit keeps its own start.

    Returns:
        For each role, the names of the weights that were left as they were.

    Raises:
        ValueError: less than half of a network's numbers would come over.
    """
    left = {}
    for role, source in system.recipe.init.items():
        path = locate(source, weights=True)
        tensors = weights_of(path, role)
        network = getattr(system, role)
        left[role] = checkpoint.fit(network, tensors, str(path), partial=True)
        sizes = {name: value.numel() for name, value in network.state_dict().items()}
        whole, fresh = sum(sizes.values()), sum(sizes[name] for name in left[role])
        if 2 * fresh > whole:
            raise ValueError(
                f"{system.recipe.name}: init.{role} = {source!r}: only {whole - fresh:,} of {whole:,} numbers fit; "
                f"give networks.{role} the options that it was trained with, or start it afresh (--set init={{}})"
            )
    return left


def weights_of(path: str | Path, role: str) -> dict[str, Tensor]:
    """Return a network's weights from a checkpoint, in float32: the averaged ones where it has them."""
    tensors, _ = checkpoint.load(path, f"ema.{role}.")
    tensors.pop("updates", None)  # the average's own counter
    if not tensors:
        tensors, _ = checkpoint.load(path, f"{role}.")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def restore(path: str, device: str = "cpu") -> System:
    """Rebuild a system for inference from a checkpoint alone: averaged weights where it has them, evaluation mode.

    Raises:
        ValueError: the file is no checkpoint of img2img, or its weights do not fit its recipe.
    """
    _, meta = checkpoint.load(path, "\0")
    recipe = Recipe.parse(meta["recipe"], str(path))
    # What only training needs is not built: a perceptual term would fetch its network.
    roles = lookup("task", recipe.task).inference
    networks = {role: spec for role, spec in recipe.networks.items() if role in roles}
    training: dict[str, Any] = {key: [] for key in TERMS}
    training |= {"adversarial": None, "pool": 0, "unroll": None, "consensus": None}
    try:
        with bounded(Path(path).stat().st_size):
            system = build(replace(recipe, networks=networks, **training))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    system.recipe, system.classes = recipe, meta.get("classes", [])
    for role in roles:
        checkpoint.fit(getattr(system, role), weights_of(path, role), str(path))
    return system.to(device).eval().requires_grad_(False)
