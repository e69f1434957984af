"""The only training loop: phases, averaging, precision, validation, logs, checkpoints that resume bit for bit."""

import copy
import hashlib
import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from img2img import checkpoint, engine
from img2img.adversarial.stabilize import EMA, clip_weights
from img2img.data.stream import stream
from img2img.evaluation import metric
from img2img.recipe import Optimizer, Recipe
from img2img.systems.system import System, build, initialise

HIGHER_IS_BETTER = ("psnr", "ssim")


class Trainer:
    """Trains the system of a recipe on folders of images, into a run folder.

    Every random number follows from the seed and the place in the run (step, phase, micro batch), and so does every
    batch. So a resumed run continues as if it had never stopped, and n processes equal one that accumulates n batches.

    Args:
        recipe: what to train.
        data: folder or folders with the training images, as the recipe's task wants them.
        out: the run folder: last.safetensors, best.safetensors, log.jsonl, samples/, recipe.toml, TensorBoard's files.
        validation: folder with images to validate on, or None.
        seed: 0 or more.
        device: e.g. "cuda:0"; None for the best here.
        precision: "fp32", "bf16" or "fp16"; None for bf16 where the device has it, else fp32.
        compile: compile the networks (worth it on a GPU only).
        progress: show a bar on stderr.

    Raises:
        ValueError: no data, a run folder that holds another recipe or seed, a precision the device lacks.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: str | Path | list[str | Path],
        out: str | Path,
        *,
        validation: str | Path | None = None,
        seed: int = 0,
        device: str | None = None,
        precision: str | None = None,
        compile: bool = False,
        progress: bool = True,
    ) -> None:
        from accelerate import PartialState

        if seed < 0:
            raise ValueError(f"seed {seed} must be 0 or more")
        self.recipe, self.seed, self.progress = recipe, seed, progress
        self.out = Path(out)
        self.processes = PartialState(cpu=device == "cpu")
        self.rank, self.world = self.processes.process_index, self.processes.num_processes
        self.device = self.processes.device if self.world > 1 else engine.choose_device(device)
        self.dtype = engine.choose_precision(precision, self.device)
        torch.manual_seed(seed)
        self.system = build(recipe)
        self.source = self.system.source(data)
        self.check = self.system.source(validation, validation=True) if validation and recipe.validate.metrics else None
        self.metrics = {name: metric(name) for name in recipe.validate.metrics} if self.check else {}
        if self.check is not None and not len(self.check):
            raise ValueError(f"{validation}: no readable image to validate on")
        self.step, self.best = 0, None
        self.sums: dict[str, Tensor] = {}  # losses since the last line of the log
        self.last = self.out / "last.safetensors"
        resuming = self.last.is_file()
        if not resuming:
            initialise(self.system)
        self.system.to(self.device, memory_format=torch.channels_last)
        decay = recipe.train.ema
        self.ema = nn.ModuleDict(
            {r: EMA(getattr(self.system, r), decay) for r in self.system.inference} if decay else {}
        )
        self.plans = {phase: recipe.optimizer_for(phase) for phase in recipe.schedule}
        self.optimizers = {
            phase: optimizer(plan, list(getattr(self.system, phase).parameters()), self.device)
            for phase, plan in self.plans.items()
        }
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.forward = torch.compile(self.system.losses) if compile else self.system.losses
        if resuming:
            self._resume()

    @property
    def micros(self) -> int:
        """Micro batches of one step, over all processes."""
        return self.recipe.train.accumulate * self.world

    @property
    def images_per_step(self) -> int:
        """Training images that the phase with the most repetitions looks at in one step."""
        return self.recipe.train.batch * self.micros * max(self.recipe.schedule.values())

    @property
    def images(self) -> int:
        """Training images seen so far."""
        return self.step * self.images_per_step

    def run(self) -> dict[str, Any]:
        """Train until the recipe's number of images; return the last log line.

        An interrupt (Ctrl-C or SIGTERM) finishes the step, writes a checkpoint and raises KeyboardInterrupt.
        """
        plan = self.recipe.train
        main = self.rank == 0
        if main:
            self.out.mkdir(parents=True, exist_ok=True)
            # Of a run that was killed while it wrote; safetensors has temporary files of its own.
            for left in (*self.out.glob(".*.partial*"), *self.out.glob(".tmp??????")):
                left.unlink(missing_ok=True)
            self._trim_log()
            with checkpoint.atomic(self.out / "recipe.toml") as path:
                path.write_text(self.recipe.toml(), encoding="utf-8")
        total = math.ceil(plan.images / self.images_per_step)
        batches = self._batches()
        line: dict[str, Any] = {}
        asked: list[int] = []
        handlers = {name: signal.signal(name, lambda number, frame: asked.append(number)) for name in self._signals()}
        board = self._board() if main else None
        bar = tqdm(
            total=total * self.images_per_step,
            initial=self.images,
            desc=self.recipe.name,
            unit="image",
            unit_scale=True,
            disable=None if self.progress and main else True,
            file=sys.stderr,
        )
        try:
            while self.step < total and not asked:
                for name, value in self._advance(batches).items():
                    self.sums[name] = self.sums.get(name, 0) + value
                    self.sums[f"n/{name}"] = self.sums.get(f"n/{name}", 0) + 1
                before, after = (self.step - 1) * self.images_per_step, self.images
                bar.update(self.images_per_step)
                done = self.step == total

                def due(every: int, before: int = before, after: int = after, done: bool = done) -> bool:
                    return done or before // every != after // every

                if due(plan.log_images):
                    line = {"step": self.step, "images": after} | self._means(self.sums)
                    self.sums = {}
                    bar.set_postfix({k: f"{v:.3g}" for k, v in list(line.items())[2:5]})
                    if main:
                        self._log(line, board)
                if due(plan.checkpoint_images) or due(plan.validate_images):
                    self._share_statistics()
                if self.check and due(plan.validate_images):
                    found = self.validate()
                    line = {"step": self.step, "images": after} | found
                    if main:
                        self._log(line, board)
                        self._keep_best(found)
                if main and due(plan.checkpoint_images):
                    self.save(self.last)
            if asked and main:
                self.save(self.last)
        finally:
            bar.close()
            if board:
                board.close()
            for name, handler in handlers.items():
                signal.signal(name, handler)
        if asked:
            raise KeyboardInterrupt(f"stopped at {self.images} images; the same command goes on from there")
        return line

    def _advance(self, batches: dict[str, Iterator[dict[str, Tensor]]]) -> dict[str, Tensor]:
        """Take one step of every phase; return the mean of every named loss."""
        found: dict[str, Tensor] = {}
        for phase, repeats in self.recipe.schedule.items():
            learner = getattr(self.system, phase)
            for name, network in self.system.named_children():
                network.requires_grad_(name == phase)
            self.system.train()
            parameters = [p for p in learner.parameters() if p.requires_grad]
            self._set_rate(phase)
            for repeat in range(repeats):
                self.optimizers[phase].zero_grad(set_to_none=True)
                terms: dict[str, Tensor] = {}
                for micro in range(self.rank, self.micros, self.world):
                    torch.manual_seed(derive(self.seed, self.step, phase, repeat, micro))
                    batch = self._to_device(next(batches[phase]))
                    with engine.autocast(self.device, self.dtype):
                        losses = self.forward(phase, batch, self.step)
                    means = {
                        name: value.float().mean() / self.recipe.train.accumulate for name, value in losses.items()
                    }
                    if means:  # a phase may rest, where its terms count in some steps only
                        self.scaler.scale(sum(means.values())).backward()
                    for name, value in means.items():
                        terms[name] = terms.get(name, 0) + value.detach()
                self._apply(phase, learner, parameters)
            found |= {f"{phase}/{name}": value for name, value in terms.items()}
        self.step += 1
        for role, average in self.ema.items():
            average.update(getattr(self.system, role))
        return found

    def _apply(self, phase: str, learner: nn.Module, parameters: list[Tensor]) -> None:
        optimizer = self.optimizers[phase]
        parameters = [p for p in parameters if p.grad is not None]
        if not parameters:
            return
        if self.world > 1:
            flat = torch.cat([p.grad.flatten() for p in parameters])
            flat = self._mean_over_processes(flat)
            for p, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                p.grad.copy_(grad.view_as(p))
        self.scaler.unscale_(optimizer) if self.scaler.is_enabled() else None
        limit = self.recipe.train.clip_gradient or math.inf
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        if not torch.isfinite(norm) and not self.scaler.is_enabled():
            raise ValueError(
                f"{self.out}: the gradient of {phase} is not finite at step {self.step}; lower optimizer.lr, set "
                f"train.clip_gradient or use --precision fp32 (the last checkpoint is whole: {self.last})"
            )
        self.scaler.step(optimizer)
        self.scaler.update()
        if phase in self.recipe.clip_weights:
            clip_weights(learner, self.recipe.clip_weights[phase])

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the mean of every metric over the validation images, by the averaged weights; write a sample grid."""
        system = self._averaged()
        totals = dict.fromkeys(self.metrics, 0.0)
        shown = []
        for index in range(len(self.check)):
            rng = np.random.default_rng((self.seed, index))
            batch = {name: value[None].to(self.device) for name, value in self.check.item(index, rng).items()}
            with engine.autocast(self.device, self.dtype):
                output = system.infer(batch["input"]).float()
            low, high = system.span
            output, target = ((x - low) / (high - low) for x in (output, batch["target"]))
            for name, function in self.metrics.items():
                totals[name] += float(function(output, target).mean()) / len(self.check)
            if len(shown) < 4:
                shown.append((batch["input"], output, target, low, high))
        if self.rank == 0:
            grid(shown, self.out / "samples" / f"{self.images:09d}.png")
        return {f"validation/{name}": value for name, value in totals.items()}

    def _averaged(self) -> System:
        """Return the system for inference: a shallow copy whose networks are the averaged ones."""
        view = copy.copy(self.system)
        view._modules = dict(self.system._modules) | {role: ema.module for role, ema in self.ema.items()}
        for role in self.system.inference:
            getattr(view, role).eval()
        return view

    def save(self, path: Path, slim: bool = False) -> None:
        """Write a checkpoint: everything that moves, or with ``slim`` the networks that inference needs."""
        tensors = {}
        for name, value in self.system.state_dict().items():
            if not slim or name.split(".")[0] in self.system.inference and not self.ema:
                tensors[name] = value
        for role, average in self.ema.items():
            state = average.module.state_dict() if slim else average.state_dict()
            for name, value in state.items():
                tensors[f"{role}.{name}" if slim else f"ema.{role}.{name.removeprefix('module.')}"] = value
        if not slim:
            for phase, opt in self.optimizers.items():
                for place, state in opt.state_dict()["state"].items():
                    for key, value in state.items():
                        tensors[f"optimizer.{phase}.{place}.{key}"] = torch.as_tensor(value)
        header = {"recipe": self.recipe.page(), "step": self.step, "images": self.images, "seed": self.seed}
        header |= {"best": self.best, "world": self.world, "scaler": self.scaler.state_dict()}
        header["sums"] = {name: float(value) for name, value in self.sums.items()}
        checkpoint.save(path, tensors, header)

    def _resume(self) -> None:
        tensors, header = checkpoint.load(self.last)
        if missing := {"step", "seed", "world"} - header.keys():
            raise ValueError(f"{self.last}: holds weights only (no {sorted(missing)[0]}), so no run can go on from it")
        theirs, mine = Recipe.parse(header["recipe"], str(self.last)), self.recipe
        # Lengths and logging may change between runs; what shapes the game may not.
        for key in ("networks", "schedule", "adversarial", "penalty", "fidelity", "data", "clip_weights", "optimizer"):
            if getattr(theirs, key) != getattr(mine, key):
                raise ValueError(
                    f"{self.out}: holds a run with another '{key}'; choose another --out, or drop the --set for it"
                )
        if (
            header["seed"] != self.seed
            or theirs.train.batch * header["world"] * theirs.train.accumulate != mine.train.batch * self.micros
        ):
            raise ValueError(
                f"{self.out}: holds a run with another seed or batch "
                f"(seed {header['seed']}, batch {theirs.train.batch}); choose another --out"
            )
        where = str(self.last)
        own = {n: v for n, v in tensors.items() if not n.startswith(("ema.", "optimizer."))}
        checkpoint.fit(self.system, own, where)
        for role, average in self.ema.items():
            state = {n.removeprefix(f"ema.{role}."): v for n, v in tensors.items() if n.startswith(f"ema.{role}.")}
            updates = state.pop("updates", torch.zeros((), dtype=torch.long))
            checkpoint.fit(average.module, state, where)
            average.updates.copy_(updates)
        for phase, opt in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith(f"optimizer.{phase}."):
                    place, key = name.removeprefix(f"optimizer.{phase}.").split(".", 1)
                    state.setdefault(int(place), {})[key] = value
            parameters = list(getattr(self.system, phase).parameters())
            for place, found in state.items():
                for key, value in found.items():
                    # In memory as its parameter is: a fused optimizer goes through both without looking at strides.
                    if value.dim():
                        found[key] = torch.empty_like(parameters[place], dtype=value.dtype).copy_(value)
            opt.load_state_dict({"state": state, "param_groups": opt.state_dict()["param_groups"]})
        self.step, self.best = int(header["step"]), header.get("best")
        self.sums = {name: torch.tensor(value, device=self.device) for name, value in header.get("sums", {}).items()}
        if header.get("scaler"):
            self.scaler.load_state_dict(header["scaler"])

    def _batches(self) -> dict[str, Iterator[dict[str, Tensor]]]:
        plan = self.recipe.train
        return {
            phase: stream(
                self.source,
                plan.batch,
                derive(self.seed, phase) >> 1,
                self.step * repeats * self.micros + self.rank,
                self.world,
                plan.workers,
            )
            for phase, repeats in self.recipe.schedule.items()
        }

    def _set_rate(self, phase: str) -> None:
        plan = self.plans[phase]
        share = min(1.0, self.images / max(1, self.recipe.train.images))
        factor = {"constant": 1.0, "linear": 1 - share, "cosine": 0.5 + 0.5 * math.cos(math.pi * share)}[plan.decay]
        if plan.warmup_images:
            factor *= min(1.0, (self.images + self.images_per_step) / plan.warmup_images)
        for group in self.optimizers[phase].param_groups:
            group["lr"] = plan.lr * factor

    def _to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: value.to(
                self.device,
                non_blocking=True,
                memory_format=torch.channels_last if value.dim() == 4 else torch.preserve_format,
            )
            for name, value in batch.items()
        }

    def _mean_over_processes(self, value: Tensor) -> Tensor:
        from accelerate.utils import reduce

        return reduce(value, "mean")

    @torch.no_grad()
    def _share_statistics(self) -> None:
        """Average the running statistics, which each process gathered from its own images, over the processes."""
        if self.world > 1:
            for module in (self.system, self.ema):
                for buffer in module.buffers():
                    if buffer.is_floating_point():
                        buffer.copy_(self._mean_over_processes(buffer))

    def _means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        names = [name for name in sums if not name.startswith("n/")]
        values = torch.stack([sums[name] / sums[f"n/{name}"] for name in names])
        if self.world > 1:
            values = self._mean_over_processes(values)
        return dict(zip(names, values.tolist(), strict=True))

    def _keep_best(self, found: dict[str, float]) -> None:
        name = self.recipe.validate.best or next(iter(self.metrics))
        value = found[f"validation/{name}"]
        sign = 1 if name.split("[")[0] in HIGHER_IS_BETTER else -1
        if math.isnan(value):
            return
        if self.best is None or sign * value > sign * self.best["value"]:
            self.best = {"metric": name, "value": value, "step": self.step, "images": self.images}
            self.save(self.out / "best.safetensors", slim=True)

    def _log(self, line: dict[str, Any], board: Any) -> None:
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in line.items():
            if "/" in name:
                board.add_scalar(name, value, self.images)

    def _trim_log(self) -> None:
        """Drop the lines written after the checkpoint, or by a run that left none: they are written again."""
        path = self.out / "log.jsonl"
        if not path.is_file():
            return
        kept = []
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(text)["step"] <= self.step:
                    kept.append(text + "\n")
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        with checkpoint.atomic(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def _board(self) -> Any:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.out / "tensorboard"), purge_step=self.images)

    @staticmethod
    def _signals() -> list[signal.Signals]:
        import threading

        # Only the main thread may set handlers; elsewhere the caller's own stay.
        return [signal.SIGINT, signal.SIGTERM] if threading.current_thread() is threading.main_thread() else []


def derive(seed: int, *place: int | str) -> int:
    """Return the 63-bit seed that belongs to a place in the run: step, phase, repetition, micro batch."""
    digest = hashlib.sha256(json.dumps([seed, *place]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def optimizer(plan: Optimizer, parameters: list[Tensor], device: torch.device) -> torch.optim.Optimizer:
    """Return the optimizer that a recipe describes, fused where the device allows it."""
    fused = {"fused": True} if device.type in ("cpu", "cuda") else {}
    if plan.type in ("adam", "adamw"):
        kind = torch.optim.Adam if plan.type == "adam" else torch.optim.AdamW
        return kind(parameters, lr=plan.lr, betas=plan.betas, weight_decay=plan.weight_decay, **fused)
    if plan.type == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=plan.lr, weight_decay=plan.weight_decay)
    return torch.optim.SGD(parameters, lr=plan.lr, momentum=plan.betas[0], weight_decay=plan.weight_decay, **fused)


def grid(rows: list[tuple], path: Path) -> None:
    """Write rows of input | output | target as one PNG, cut to 256 pixels; inputs are enlarged to the target's size."""
    from torch.nn.functional import interpolate
    from torchvision.utils import make_grid

    from img2img.imaging.picture import Picture, write

    tiles = []
    for given, output, target, low, high in rows:
        given = interpolate((given.float() - low) / (high - low), size=target.shape[-2:], mode="nearest")
        channels = max(given.shape[1], target.shape[1])
        for image in (given, output, target):
            image = image[..., :256, :256].clamp(0, 1).cpu().expand(-1, channels, -1, -1)
            tiles.append(torch.nn.functional.pad(image, (0, 256 - image.shape[-1], 0, 256 - image.shape[-2]))[0])
    image = make_grid(tiles, nrow=3, padding=4)
    write(path, Picture((image.permute(1, 2, 0).numpy() * 255).round().astype("uint8")))
