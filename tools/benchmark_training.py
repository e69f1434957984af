"""Time training steps: ours, as the trainer drives them, against the same games written plainly.

The plain form is that of reference implementations: float32, PyTorch's own layers and memory layout, default Adam, one
pass for real and one for generated images; what it is given is already in memory, while ours reads its images. Every
contestant has a process of its own and waits for its turn: a game's repetitions are interleaved, and ratios are medians
over repetitions. Before that, one step of both on the same weights and images is compared, without dropout.
"""

import argparse
import contextlib
import fnmatch
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

DCGAN = {
    "name": "dcgan",
    "task": "generate",
    "schedule": {"generator": 1, "discriminator": 1},
    "optimizer": {"lr": 2e-4, "betas": [0.5, 0.999]},
    "networks": {
        "generator": {"type": "dcgan_generator", "latent": 100, "width": 64},
        "discriminator": {"type": "dcgan_discriminator", "width": 64},
    },
    "adversarial": {"type": "logistic"},
    "train": {"batch": 64},
}
# name: the page, what is changed in it, and which plain form plays it (none: only timed beside the others)
GAMES: dict[str, dict[str, Any]] = {
    "pix2pix 256": {"page": "pix2pix", "set": {"data.size": 256, "train.batch": 1}, "plain": "pix2pix"},
    "cyclegan 128": {"page": "cyclegan", "set": {"data.size": 128, "train.batch": 1}, "plain": "cyclegan"},
    "cyclegan 256": {"page": "cyclegan", "set": {"data.size": 256, "train.batch": 1}, "plain": "cyclegan"},
    "cut 128": {"page": "cut", "set": {"data.size": 128, "train.batch": 1}, "plain": None},
    "dcgan 64": {"page": DCGAN, "set": {"data.size": 64}, "plain": "dcgan"},
    "wgan_gp critic 64": {
        "page": "wgan_gp",
        "set": {"data.size": 64, "train.batch": 64, "schedule": {"discriminator": 1}},
        "plain": "wgan_gp",
    },
}
WAYS = ("plain", "fp32", "bf16")
TOLERANCE = {"losses": 1e-3, "gradients": 0.05}
"""Largest relative difference to the plain form in fp32; more is another game.

An L1 distance has a kink for every value: rounding that moves a single one across shows in the gradient. In bf16 a
fresh network's gradient may differ by half, with PyTorch's own layers as well, so that there nothing is required.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="games by name or pattern, e.g. 'cyclegan*'")
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repetitions (default 7); 0: only compare")
    parser.add_argument("--threads", type=int, help="threads of each contestant (default: PyTorch's choice)")
    parser.add_argument("--size", type=int, help="side of the images, instead of each game's own, for a quick look")
    parser.add_argument("--width", type=int, help="width of the networks, instead of the pages', for a quick look")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        child(json.loads(options.child))
        return 0
    try:
        found = benchmark(options)
    except (ValueError, OSError) as error:
        print(f"benchmark_training: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found) if options.json else tables(found))
    different = [
        name
        for name, facts in found["games"].items()
        if any(not worst <= TOLERANCE[kind] for kind, worst in worst_of(facts["differences"].get("fp32", {})).items())
    ]
    if different:
        print(f"benchmark_training: not the same game: {', '.join(different)}", file=sys.stderr)
    return 1 if different else 0


def worst_of(differences: dict[str, float]) -> dict[str, float]:
    """Return the largest difference of any loss and of any network's gradient."""
    kinds: dict[str, list[float]] = {}
    for name, value in differences.items():
        kinds.setdefault("gradients" if name.endswith(" gradient") else "losses", []).append(value)
    return {kind: max(values) for kind, values in kinds.items()}


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Play one game after another: compare the contestants, then give each its turn in every repetition."""
    import torch
    from tqdm import tqdm

    from img2img import engine

    if options.repeats < 0:
        raise ValueError("--repeats must be 0 or more")
    chosen = [name for name in GAMES if not options.only or any(fnmatch.fnmatch(name, each) for each in options.only)]
    if not chosen:
        raise ValueError(f"no game is called {' or '.join(options.only)}; there are: {'; '.join(GAMES)}")
    native = engine.native_bf16(torch.device("cpu"))
    if not native:
        print("bf16 is not native here: left out", file=sys.stderr)
    known = [way for way in WAYS if native or way != "bf16"]
    threads = options.threads or torch.get_num_threads()
    found: dict[str, Any] = {"repeats": options.repeats, "threads": threads, "native_bf16": native, "games": {}}
    for name in tqdm(chosen, unit="game", file=sys.stderr, disable=None):
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="img2img-training-")))
            ways = [way for way in known if way != "plain" or GAMES[name]["plain"]]
            page = recipe(name, options.size, options.width).page()
            setup = {"page": page, "plain": GAMES[name]["plain"], "folder": str(folder), "threads": threads}
            images(folder, page)
            facts: dict[str, Any] = {"differences": {}}
            if "plain" in ways:
                with contextlib.closing(Child({**setup, "way": "compare"})) as process:
                    facts["differences"] = {way: process.ask(way) for way in ways if way != "plain"}
                    if "bf16" in ways and "penalty" in page:
                        facts["bf16 gradient"] = process.ask("penalty")
            if options.repeats:
                running = {way: stack.enter_context(contextlib.closing(Child({**setup, "way": way}))) for way in ways}
                turns = [{way: process.ask("run") for way, process in running.items()} for _ in range(options.repeats)]
                facts["seconds"] = {way: statistics.median(turn[way] for turn in turns) for way in ways}
                facts["ratios"] = {
                    way: statistics.median(turn["plain"] / turn[way] for turn in turns)
                    for way in ways
                    if way != "plain" and "plain" in ways
                }
            found["games"][name] = facts
    return found


def recipe(name: str, size: int | None = None, width: int | None = None) -> Any:
    """Return a game's page as it is played here: without an average of the weights, which the plain form lacks."""
    from img2img.recipe import Recipe, read

    game = GAMES[name]
    found = Recipe.parse(game["page"]) if isinstance(game["page"], dict) else read(game["page"])
    changes = {**game["set"], "train.ema": 0.0, "validate.metrics": [], "validate.best": ""}
    changes |= {"data.size": size} if size else {}
    changes |= {f"networks.{role}.width": width for role in found.networks} if width else {}
    return found.override(changes)


def images(folder: Path, page: dict[str, Any]) -> None:
    """Write the images that a game is played with: A/ and B/ where it translates."""
    import cv2
    import numpy as np

    size, random = page["data"]["size"], np.random.default_rng(0)
    for side in (".",) if page["task"] == "generate" else ("A", "B"):
        target = folder / "data" / side
        target.mkdir(parents=True)
        for place in range(max(4, page["train"]["batch"])):
            small = random.integers(0, 256, (max(2, size // 16), max(2, size // 16), 3), np.uint8)
            cv2.imwrite(str(target / f"{place}.png"), cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC))


class Child:
    """A contestant in a process of its own, which answers each request with a line of JSON."""

    def __init__(self, setup: dict[str, Any]) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(setup["threads"]), "IMG2IMG_CACHE": setup["folder"]}
        if setup["way"] != "plain":
            environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it
        self.name = f"{setup['page']['name']}, {setup['way']}"
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--child", json.dumps(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            self._answer()  # loaded and warm
        except BaseException:
            self.close()
            raise

    def ask(self, request: str) -> Any:
        """Send a request and wait for its answer."""
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise ValueError(f"{self.name}: ended with exit code {self.process.wait()}, see above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


# In the child


def child(setup: dict[str, Any]) -> None:
    """Load a contestant, warm up, and serve requests: one step's seconds, or the differences in one step."""
    import torch

    from img2img.recipe import Recipe

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints, prints on stderr

    def answer(found: Any) -> None:
        print(json.dumps(found), file=answers, flush=True)

    torch.set_num_threads(setup["threads"])
    page, folder = Recipe.parse(setup["page"]), Path(setup["folder"])
    if setup["way"] == "compare":

        def serve(request: str) -> Any:
            return (
                narrow(page, folder) if request == "penalty" else compare(page, PLAIN[setup["plain"]], folder, request)
            )
    else:
        step = plain(page, setup["plain"], folder) if setup["way"] == "plain" else ours(page, folder, setup["way"])
        for _ in range(2):
            step()

        def serve(request: str) -> Any:
            start = time.perf_counter()
            step()
            return time.perf_counter() - start

    answer("ready")
    for line in sys.stdin:
        answer(serve(line.strip()))


def trainer_of(page: Any, folder: Path, precision: str) -> Any:
    """Return the trainer of a page, on the images in ``folder``."""
    from img2img.trainer import Trainer

    return Trainer(page, folder / "data", folder / "out", device="cpu", precision=precision, progress=False)


def ours(page: Any, folder: Path, precision: str) -> Callable[[], Any]:
    """Return the trainer's step, its reading of images included."""
    from img2img import engine

    engine.keep_memory()
    trainer = trainer_of(page, folder, precision)
    batches = trainer._batches()
    return lambda: trainer._advance(batches)


def plain(page: Any, name: str, folder: Path) -> Callable[[], Any]:
    """Return the plain form's step, on a batch in memory."""
    batch = first_batch(trainer_of(page, folder, "fp32"))
    game = PLAIN[name](page, lambda phase: None)
    return lambda: game.step(batch)


def first_batch(trainer: Any) -> dict[str, Any]:
    """Return what the trainer would begin with."""
    return next(next(iter(trainer._batches().values())))


class Game(NamedTuple):
    """A game in its plain form: networks in the order of ours, their optimizers, and one step of both players."""

    networks: dict[str, Any]
    optimizers: list[Any]
    step: Callable[[dict[str, Any]], dict[str, Any]]


def compare(page: Any, build: Callable[..., Game], folder: Path, precision: str) -> dict[str, float]:
    """Return the relative differences of ours to the plain form in one step without dropout: losses, gradients."""
    import torch

    from img2img.trainer import derive

    if "dropout" in page.networks["generator"]:
        page = page.override({"networks.generator.dropout": 0.0})
    trainer = trainer_of(page, folder, precision)
    frozen(*trainer.optimizers.values())
    # Both draw the same noise in each phase.
    game = build(page, lambda phase: torch.manual_seed(derive(trainer.seed, 0, phase, 0, 0)))
    pairs = {}
    for role, network in game.networks.items():
        mine = list(getattr(trainer.system, role).parameters())
        theirs = list(network.parameters())
        if [p.numel() for p in mine] != [p.numel() for p in theirs]:
            raise ValueError(f"{page.name}: its {role} is no longer the one that is written out here")
        for a, b in zip(mine, theirs, strict=True):
            b.data.copy_(a.data.reshape(b.shape))
        pairs[role] = mine, theirs
    frozen(*game.optimizers)
    batch = first_batch(trainer)
    wanted = game.step({name: value.clone() for name, value in batch.items()})
    found = trainer._advance({phase: iter([batch]) for phase in page.schedule})
    differences = {
        name: abs(found[name].item() - value.item()) / max(abs(value.item()), 1e-6) for name, value in wanted.items()
    }
    for role, (mine, theirs) in pairs.items():
        if role in page.schedule:
            a, b = (torch.cat([p.grad.flatten() for p in each]) for each in (mine, theirs))
            differences[f"{role} gradient"] = float((a - b).norm() / b.norm())
    return differences


def frozen(*optimizers: Any) -> None:
    """Have optimizers take no step: gradients only."""
    for optimizer in optimizers:
        optimizer.step = lambda *given, **named: None


def narrow(page: Any, folder: Path, precision: str = "bf16") -> dict[str, dict[str, float]]:
    """Compare a fresh critic's gradient under autocast to that in fp32, with its penalty and without.

    Returns:
        For each the length of the difference and of the gradient, in units of the one in fp32, and their cosine.
    """
    import torch

    def gradient(game: Any, precision: str) -> Any:
        trainer = trainer_of(game, folder, precision)
        frozen(*trainer.optimizers.values())
        trainer._advance({phase: iter([first_batch(trainer)]) for phase in game.schedule})
        return torch.cat(
            [p.grad.double().flatten() for p in trainer.system.discriminator.parameters() if p.grad is not None]
        )

    found = {}
    for name, game in (("with the penalty", page), ("without", page.override({"penalty": []}))):
        a, b = gradient(game, precision), gradient(game, "fp32")
        found[name] = {
            "difference": float((a - b).norm() / b.norm()),
            "length": float(a.norm() / b.norm()),
            "cosine": float(a @ b / (a.norm() * b.norm())),
        }
    return found


# The games in their plain form


def adam(page: Any, phase: str, *networks: Any) -> Any:
    """Return the optimizer of a phase as everybody makes it."""
    import torch

    plan = page.optimizer_for(phase)
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return torch.optim.Adam(parameters, lr=plan.lr, betas=plan.betas)


def weight(page: Any, on: str | None = None) -> float:
    """Return the page's weight of its L1 distance."""
    return next(term["weight"] for term in page.fidelity if term["type"] == "l1" and term.get("on") == on)


def pix2pix(page: Any, begin: Callable[[str], Any]) -> Game:
    """A U-Net with batch norm against a PatchGAN that sees both images; cross-entropy and L1."""
    import torch
    from torch import nn

    spec, size = page.networks["generator"], page.data.size
    generator = unet(spec["width"], size, spec["dropout"])
    discriminator = patchgan(6, page.networks["discriminator"]["width"], nn.BatchNorm2d)
    generate, judge = adam(page, "generator", generator), adam(page, "discriminator", discriminator)
    entropy, distance, share = nn.BCEWithLogitsLoss(), nn.L1Loss(), weight(page)

    def step(batch: dict[str, Any]) -> dict[str, Any]:
        given, target = batch["input"], batch["target"]
        begin("generator")
        fake = generator(given)
        discriminator.requires_grad_(False)
        generate.zero_grad()
        score = discriminator(torch.cat([given, fake], 1))
        adversarial = entropy(score, torch.ones_like(score))
        near = share * distance(fake, target)
        (adversarial + near).backward()
        generate.step()
        begin("discriminator")
        discriminator.requires_grad_(True)
        judge.zero_grad()
        real = discriminator(torch.cat([given, target], 1))
        false = discriminator(torch.cat([given, fake.detach()], 1))
        loss = entropy(real, torch.ones_like(real)) + entropy(false, torch.zeros_like(false))
        loss.backward()
        judge.step()
        return {"generator/adversarial": adversarial, "generator/l1": near, "discriminator/adversarial": loss}

    return Game({"generator": generator, "discriminator": discriminator}, [generate, judge], step)


def cyclegan(page: Any, begin: Callable[[str], Any]) -> Game:
    """Two ResNets with instance norm against two PatchGANs; least squares, cycles, identities, a pool of 50."""
    import random

    import torch
    from torch import nn

    spec, width = page.networks["generator"], page.networks["discriminator"]["width"]
    generators = nn.ModuleDict({way: resnet(spec["width"], spec["blocks"]) for way in ("ab", "ba")})
    judges = nn.ModuleDict({side: patchgan(3, width, nn.InstanceNorm2d) for side in ("a", "b")})
    generate, judge = adam(page, "generator", generators), adam(page, "discriminator", judges)
    square, distance = nn.MSELoss(), nn.L1Loss()
    cycle, identity = (next(t["weight"] for t in page.fidelity if t["on"] == on) for on in ("cycle", "identity"))
    share = page.adversarial.get("weight", 1.0) / 2  # the page's least squares have a factor 1/2
    pools: dict[str, list[Any]] = {"a": [], "b": []}

    def pooled(side: str, fakes: Any) -> Any:
        found, pool = [], pools[side]
        for image in fakes:
            if len(pool) < 50:
                pool.append(image)
                found.append(image)
            elif random.random() > 0.5:
                place = random.randrange(50)
                found.append(pool[place])
                pool[place] = image
            else:
                found.append(image)
        return torch.stack(found)

    def step(batch: dict[str, Any]) -> dict[str, Any]:
        losses, fakes = {}, {}
        begin("generator")
        judges.requires_grad_(False)
        generate.zero_grad()
        for there, back in (("ab", "ba"), ("ba", "ab")):
            source, target = batch[there[0]], batch[there[1]]
            fakes[there[1]] = fake = generators[there](source)
            score = judges[there[1]](fake)
            losses[f"generator/adversarial_{there}"] = share * square(score, torch.ones_like(score))
            losses[f"generator/l1_{there}"] = cycle * distance(generators[back](fake), source)
            losses[f"generator/identity_l1_{there}"] = identity * distance(generators[there](target), target)
        sum(losses.values()).backward()
        generate.step()
        begin("discriminator")
        judges.requires_grad_(True)
        judge.zero_grad()
        for side, there in (("b", "ab"), ("a", "ba")):
            real, false = judges[side](batch[side]), judges[side](pooled(side, fakes[side].detach()))
            loss = (square(real, torch.ones_like(real)) + square(false, torch.zeros_like(false))) / 2
            loss.backward()
            losses[f"discriminator/adversarial_{there}"] = loss
        judge.step()
        return losses

    return Game({"generator": generators, "discriminator": judges}, [generate, judge], step)


def dcgan(page: Any, begin: Callable[[str], Any]) -> Game:
    """DCGAN with batch norm; cross-entropy."""
    import torch
    from torch import nn

    latent, generator, discriminator = noise_players(page, nn.BatchNorm2d)
    generate, judge = adam(page, "generator", generator), adam(page, "discriminator", discriminator)
    entropy = nn.BCEWithLogitsLoss()

    def step(batch: dict[str, Any]) -> dict[str, Any]:
        begin("generator")
        images = batch["real"]
        fake = generator(torch.randn(len(images), latent, 1, 1))
        generate.zero_grad()
        score = discriminator(fake)
        adversarial = entropy(score, torch.ones_like(score))
        adversarial.backward()
        generate.step()
        begin("discriminator")
        judge.zero_grad()
        real, false = discriminator(images), discriminator(fake.detach())
        on_real = entropy(real, torch.ones_like(real))
        on_real.backward()
        on_fake = entropy(false, torch.zeros_like(false))
        on_fake.backward()
        judge.step()
        return {"generator/adversarial": adversarial, "discriminator/adversarial": on_real.detach() + on_fake.detach()}

    return Game({"generator": generator, "discriminator": discriminator}, [generate, judge], step)


def wgan_gp(page: Any, begin: Callable[[str], Any]) -> Game:
    """The critic's step only, with gradient penalty: DCGAN's networks, the critic without norm."""
    import torch

    latent, generator, critic = noise_players(page, None)
    judge, share = adam(page, "discriminator", critic), page.penalty[0]["weight"]

    def step(batch: dict[str, Any]) -> dict[str, Any]:
        begin("discriminator")
        images = batch["real"]
        with torch.no_grad():
            fake = generator(torch.randn(len(images), latent, 1, 1))
        judge.zero_grad()
        loss = critic(fake).mean() - critic(images).mean()
        place = torch.rand(len(images), 1, 1, 1)
        between = ((1 - place) * images + place * fake).requires_grad_(True)
        score = critic(between)
        (slope,) = torch.autograd.grad(
            score, between, torch.ones_like(score), create_graph=True, retain_graph=True, only_inputs=True
        )
        penalty = share * ((slope.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
        (loss + penalty).backward()
        judge.step()
        return {"discriminator/adversarial": loss, "discriminator/gradient_penalty": penalty}

    return Game({"generator": generator, "discriminator": critic}, [judge], step)


PLAIN: dict[str, Callable[..., Game]] = {"pix2pix": pix2pix, "cyclegan": cyclegan, "dcgan": dcgan, "wgan_gp": wgan_gp}


def unet(width: int, size: int, dropout: float) -> Any:
    """Return pix2pix's generator down to one pixel, with batch norm."""
    import torch
    from torch import nn

    class Skip(nn.Module):
        def __init__(self, outer: int, inner: int, below: nn.Module | None, drop: bool) -> None:
            super().__init__()
            down = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=False)]
            middle = [nn.BatchNorm2d(inner), below] if below else []
            rise = nn.ConvTranspose2d(inner * 2 if below else inner, outer, 4, 2, 1, bias=False)
            up = [nn.ReLU(True), rise, nn.BatchNorm2d(outer), *([nn.Dropout(dropout)] if drop and dropout else [])]
            self.layers = nn.Sequential(*down, *middle, *up)

        def forward(self, x: Any) -> Any:
            return torch.cat([x, self.layers(x)], 1)

    levels = (size & -size).bit_length() - 1
    widths = [width * min(8, 2**level) for level in range(levels)]
    below = None
    for level in range(levels - 1, 0, -1):
        outer, inner = widths[level - 1], widths[level]
        below = Skip(outer, inner, below, below is not None and outer == inner)
    first, last = nn.Conv2d(3, width, 4, 2, 1), nn.ConvTranspose2d(2 * width, 3, 4, 2, 1)
    return nn.Sequential(first, below, nn.ReLU(True), last, nn.Tanh())


def patchgan(inputs: int, width: int, norm: Callable[[int], Any]) -> Any:
    """Return the discriminator of 70 x 70 pixels."""
    from torch import nn

    layers = [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    bias = norm is nn.InstanceNorm2d
    for before, after, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        convolution = nn.Conv2d(width * before, width * after, 4, stride, 1, bias=bias)
        layers += [convolution, norm(width * after), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))


def resnet(width: int, blocks: int) -> Any:
    """Return CycleGAN's generator, without the biases that instance norms take away."""
    from torch import nn

    def block_layers(count: int) -> Iterator[nn.Module]:
        for last in (False, True):
            yield from (nn.ReflectionPad2d(1), nn.Conv2d(count, count, 3, bias=False), nn.InstanceNorm2d(count))
            if not last:
                yield nn.ReLU(True)

    class Block(nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(*block_layers(count))

        def forward(self, x: Any) -> Any:
            return x + self.layers(x)

    def after(count: int) -> list[nn.Module]:
        return [nn.InstanceNorm2d(count), nn.ReLU(True)]

    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=False), *after(width)]
    for count in (width, 2 * width):
        layers += [nn.Conv2d(count, 2 * count, 3, 2, 1, bias=False), *after(2 * count)]
    layers += [Block(4 * width) for _ in range(blocks)]
    for count in (4 * width, 2 * width):
        layers += [nn.ConvTranspose2d(count, count // 2, 3, 2, 1, 1, bias=False), *after(count // 2)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())


def noise_players(page: Any, norm: Callable[[int], Any] | None) -> tuple[int, Any, Any]:
    """Return the latent's length, and DCGAN's generator and discriminator, whose ``norm`` may be none."""
    from torch import nn

    latent, width = page.networks["generator"]["latent"], page.networks["generator"]["width"]
    count = (page.data.size // 4).bit_length() - 1
    widths = [width * 2**level for level in range(count)]
    layers = [nn.ConvTranspose2d(latent, widths[-1], 4, bias=False), nn.BatchNorm2d(widths[-1]), nn.ReLU(True)]
    for before, after in zip(widths[:0:-1], widths[-2::-1], strict=True):
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(True)]
    generator = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())
    width = page.networks["discriminator"]["width"]
    layers = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for level in range(1, count):
        before, after = width * 2 ** (level - 1), width * 2**level
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=norm is None), *([norm(after)] if norm else [])]
        layers += [nn.LeakyReLU(0.2, True)]
    return latent, generator, nn.Sequential(*layers, nn.Conv2d(width * 2 ** (count - 1), 1, 4), nn.Flatten())


def tables(found: dict[str, Any]) -> str:
    """Return the result as Markdown tables."""
    lines = [f"{found['threads']} threads, medians of {found['repeats']} interleaved repetitions", ""]
    timed = {name: facts for name, facts in found["games"].items() if "seconds" in facts}
    if timed:
        lines += ["| a step | plain, s | ours fp32, s | ours bf16, s | fp32, times as fast | bf16, times as fast |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
        for name, facts in timed.items():
            seconds = [f"{facts['seconds'][way]:.3g}" if way in facts["seconds"] else "" for way in WAYS]
            ratios = [f"{facts['ratios'][way]:.2f}" if way in facts["ratios"] else "" for way in WAYS[1:]]
            lines.append(f"| {name} | {' | '.join(seconds + ratios)} |")
        lines.append("")
    lines += ["| first step, relative difference | fp32 losses | fp32 gradients | bf16 losses | bf16 gradients |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    for name, facts in found["games"].items():
        if not facts["differences"]:
            continue
        cells = []
        for way in WAYS[1:]:
            worst = worst_of(facts["differences"].get(way, {}))
            cells += [f"{worst[kind]:.1e}" if kind in worst else "" for kind in TOLERANCE]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, facts in found["games"].items():
        for which, values in facts.get("bf16 gradient", {}).items():
            said = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
            lines += ["", f"{name}: the critic's gradient in bf16 against fp32, {which}: {said}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
