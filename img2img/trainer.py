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

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from tqdm import tqdm

from img2img import checkpoint, engine
from img2img.adversarial.pool import Pool
from img2img.adversarial.stabilize import EMA, clip_weights
from img2img.alarms import COLLAPSED, Alarm, Alarms
from img2img.data.stream import stream, together
from img2img.evaluation import Judge, is_better
from img2img.metrics import DESCRIPTIVE
from img2img.recipe import TERMS, Optimizer, Recipe
from img2img.systems.system import System, Trial, build, initialise

ROLLBACKS = 3
"""How often a run may go back to its best state before it gives up."""

STATE = "best.state.safetensors"
"""File in the run folder that it goes back to."""

REHEARSAL = 8
"""Images that a validation is tried on before the first step."""


class Diverged(ValueError):  # noqa: N818 (a name that reads well at the raise)
    """The run went somewhere from which training on is no use."""


class Trainer:
    """Trains the system of a recipe on folders of images, into a run folder.

    Every random number follows from the seed and the place in the run (step, phase, micro batch), and so does every
    batch. So a resumed run continues as if it had never stopped, and n processes equal one that accumulates n batches.

    Args:
        recipe: what to train.
        data: folder or folders with the training images, as the recipe's task wants them.
        out: the run folder: last.safetensors, best.safetensors, log.jsonl, curve.png, samples/, recipe.toml,
            TensorBoard's files.
        validation: folder or folders with images to validate on, or None.
        seed: 0 or more.
        device: e.g. "cuda:0"; None for the best here.
        precision: "fp32", "bf16" or "fp16"; None for bf16 where the device has it, else fp32.
        compile: compile the networks (worth it on a GPU only).
        rollback: when a run collapses or diverges, go back to its best state and on at half the rate, thrice at most.
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
        validation: str | Path | list[str | Path] | None = None,
        seed: int = 0,
        device: str | None = None,
        precision: str | None = None,
        compile: bool = False,
        rollback: bool = False,
        progress: bool = True,
    ) -> None:
        from accelerate import PartialState

        if not 0 <= seed < 2**63:
            raise ValueError(f"seed {seed} must be 0 to 2^63 - 1")
        self.recipe, self.seed, self.rollback, self.progress = recipe, seed, rollback, progress
        self.out = Path(out)
        chosen = engine.choose_device(device)
        self.processes = PartialState(cpu=chosen.type == "cpu")
        self.rank, self.world = self.processes.process_index, self.processes.num_processes
        self.device = self.processes.device if self.world > 1 else chosen
        self.dtype = engine.choose_precision(precision, self.device)
        torch.manual_seed(seed)
        self.system = build(recipe)
        self.source = self.system.source(_paths(data))
        self.check = None
        if (validation or recipe.data.points) and recipe.validate.metrics:
            self.check = self.system.source(_paths(validation or []), validation=True)
            if not len(self.check):
                raise ValueError(f"{validation}: no readable image to validate on")
        self.judge = Judge(recipe.validate.metrics)
        if self._decisive.split("[")[0] in DESCRIPTIVE:
            raise ValueError(f"{recipe.name}: no value of {self._decisive} is better; name another as validate.best")
        self.alarms = Alarms()
        self.rate, self.rollbacks = 1.0, 0
        self.step, self.best = 0, None
        self.sums: dict[str, Tensor] = {}  # losses since the last line of the log
        self.last = self.out / "last.safetensors"
        resuming = self.last.is_file()
        if not resuming:
            for role, names in initialise(self.system).items():
                if names and self.rank == 0:
                    kept = f"{len(names)} tensors keep their own start, {', '.join(names[:3])} among them"
                    tqdm.write(f"{recipe.name}: init.{role} = {recipe.init[role]!r}: {kept}", file=sys.stderr)
        self.layout = engine.training_layout(self.system, self.device)
        self.system.to(self.device, memory_format=self.layout)
        decay = recipe.train.ema
        self.ema = nn.ModuleDict(
            {r: EMA(getattr(self.system, r), decay) for r in self.system.inference} if decay else {}
        )
        self.plans = {phase: recipe.optimizer_for(phase) for phase in recipe.schedule}
        self.optimizers = {
            phase: optimizer(plan, self._parameters(phase), self.device) for phase, plan in self.plans.items()
        }
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        for network in self.system.children() if compile else ():
            network.compile()
        if resuming:
            self._resume(self.last)
        if rollback and not self.check:
            raise ValueError(f"{recipe.name}: --rollback goes back to the best validation; give images to validate on")
        if self.check and self.images < recipe.train.images:
            self._rehearse()

    @property
    def micros(self) -> int:
        """Micro batches of one step, over all processes."""
        return self.recipe.train.accumulate * self.world

    def _parameters(self, phase: str) -> list[nn.Parameter]:
        return [p for role in self.system.roles(phase) for p in getattr(self.system, role).parameters()]

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

        Raises:
            ValueError: another run trains into the folder.
        """
        if self.rank:
            return self._run()
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.out / ".lock", timeout=0):
                return self._run()
        except Timeout:
            raise ValueError(f"{self.out}: another process trains here; wait for it, or choose another --out") from None

    def _run(self) -> dict[str, Any]:
        plan = self.recipe.train
        main = self.rank == 0
        if main:
            # Of a run that was killed while it wrote; safetensors has temporary files of its own.
            for left in (*self.out.glob(".*.partial*"), *self.out.glob(".tmp??????")):
                left.unlink(missing_ok=True)
            self._trim_log()
            with checkpoint.atomic(self.out / "recipe.toml") as path:
                path.write_text(self.recipe.toml(), encoding="utf-8")
        total = math.ceil(plan.images / self.images_per_step)
        line: dict[str, Any] = {}
        if self.step >= total and main:
            said = f"{self.recipe.name}: {self.images} images are done already; ask for more (--images) to go on"
            tqdm.write(said, file=sys.stderr)
            log = self.out / "log.jsonl"
            said_last = log.read_text(encoding="utf-8").splitlines()[-1:] if log.is_file() else []
            line = json.loads(said_last[0]) if said_last else {}
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
        stopped = False
        try:
            batches = self._batches()
            while self.step < total and not stopped and not self._enough():
                try:
                    for name, value in self._advance(batches).items():
                        self.sums[name] = self.sums.get(name, 0) + value
                        self.sums[f"n/{name}"] = self.sums.get(f"n/{name}", 0) + 1
                    bar.update(self.images_per_step)
                    found = self._report(total, bar, board)
                    line = found or line
                except Diverged as reason:
                    if not self.alarms.fatal:  # which was told
                        self._alarm(Alarm("diverged", str(reason)), board)
                    if not self._roll_back(str(reason), board):
                        raise
                    bar.n = self.images
                    batches = self._batches()
                stopped = self._any(asked)
            if main and (stopped or self.step < total):
                self.save(self.last)
        finally:
            bar.close()
            if board:
                board.close()
            for name, handler in handlers.items():
                signal.signal(name, handler)
        if stopped:
            raise KeyboardInterrupt(f"stopped at {self.images} images; the same command goes on from there")
        return line

    def _report(self, total: int, bar: tqdm, board: Any) -> dict[str, Any]:
        """Log, validate and save where this step is the one for it; return the line logged last, or nothing."""
        plan, main = self.recipe.train, self.rank == 0
        before, after, done = (self.step - 1) * self.images_per_step, self.images, self.step == total

        def due(every: int) -> bool:
            return done or before // every != after // every

        line: dict[str, Any] = {}
        if due(plan.log_images):
            line = {"step": self.step, "images": after} | self._means(self.sums)
            self.sums = {}
            bar.set_postfix({k: f"{v:.3g}" for k, v in list(line.items())[2:5]})
            self._log(line, board)
            for alarm in self.alarms.look(line):
                self._alarm(alarm, board)
        if due(plan.checkpoint_images) or due(plan.validate_images):
            self._share_statistics()
        if self.check and due(plan.validate_images):
            try:
                found = self.validate()
            except BaseException:
                if main:
                    self.save(self.last)
                raise
            line = {"step": self.step, "images": after} | found
            self._log(line, board)
            self._keep_best(found)  # before the alarms are looked at, whose state is part of it
            if main:
                curve(self.out / "log.jsonl", self.out / "curve.png")
            for alarm in self.alarms.look(line):
                self._alarm(alarm, board)
        elif self.check is None and main and due(plan.validate_images):
            self.sample()
        if self.rollback and self.alarms.fatal and (self.out / STATE).is_file():
            raise Diverged(self.alarms.fatal)
        if main and due(plan.checkpoint_images):
            self.save(self.last)
        return line

    def _enough(self) -> bool:
        """Return whether the validation has stood still for as long as the page bears, and say so."""
        plan = self.recipe.train
        still = self.images - self.best["images"] if self.best else 0
        enough = bool(plan.patience) and still >= plan.patience * max(plan.validate_images, self.images_per_step)
        if enough and self.rank == 0:
            said = f"no better {self.best['metric']} in {plan.patience} validations, the run ends"
            tqdm.write(f"{self.recipe.name}, {self.images} images: {said}", file=sys.stderr)
        return enough

    def _any(self, asked: list[int]) -> bool:
        """Return whether any process was asked to stop; all of them learn of it after the same step."""
        if self.world == 1:
            return bool(asked)
        return bool(self._mean_over_processes(torch.tensor(float(bool(asked)), device=self.device)) > 0)

    def _alarm(self, alarm: Alarm, board: Any) -> None:
        if self.rank == 0:
            self._log({"step": self.step, "images": self.images, "alarm": alarm.name, "text": alarm.text}, board)
            tqdm.write(f"{self.recipe.name}, {self.images} images: {alarm.text}", file=sys.stderr)

    def _roll_back(self, reason: str, board: Any) -> bool:
        """Go back to the best state at half the rate; return False where there is none, or it was done too often."""
        state = self.out / STATE
        if not self.rollback or self.rollbacks >= ROLLBACKS or not state.is_file():
            return False
        rate, rollbacks, before = self.rate / 2, self.rollbacks + 1, self.images
        self._resume(state)
        self.rate, self.rollbacks, self.sums = rate, rollbacks, {}
        self.alarms = Alarms({"diversity": self.alarms.diversity})
        text = f"back to {self.images} images, on at {self.rate:g} times the page's rate; at {before}: {reason}"
        if self.rank == 0:
            self._trim_log()  # of what is done again
        self._alarm(Alarm("rollback", text), board)
        if self.rank == 0:
            self.save(self.last)
        self.processes.wait_for_everyone()
        return True

    def _advance(self, batches: dict[str, Iterator[dict[str, Tensor]]]) -> dict[str, Tensor]:
        """Take one step of every phase; return the mean of every named loss."""
        found: dict[str, Tensor] = {}
        self.system.advance(self.images)
        for phase, repeats in self.recipe.schedule.items():
            roles = self.system.roles(phase)
            for name, network in self.system.named_children():
                network.requires_grad_(name in roles)
            self.system.train()
            parameters = self._parameters(phase)
            self._set_rate(phase)
            for repeat in range(repeats):
                self.optimizers[phase].zero_grad(set_to_none=True)
                terms: dict[str, Tensor] = {}
                for micro in range(self.rank, self.micros, self.world):
                    torch.manual_seed(derive(self.seed, self.step, phase, repeat, micro, *self._again))
                    batch = self._to_device(next(batches[phase]))
                    with engine.autocast(self.device, self.dtype):
                        losses = self._losses(phase, batch)
                        losses |= self.system.weight_terms(phase, self.step)
                    means = {
                        name: value.float().mean() / self.recipe.train.accumulate for name, value in losses.items()
                    }
                    if means:  # a phase may rest, where its terms count in some steps only
                        self.scaler.scale(sum(means.values())).backward()
                    for name, value in self.system.seen.items():
                        terms[name] = terms.get(name, 0) + value / self.recipe.train.accumulate
                    self.system.seen = {}
                    for name, value in means.items():
                        terms[name] = terms.get(name, 0) + value.detach()
                terms |= self._apply(phase, parameters)
            found |= {f"{phase}/{name}": value for name, value in terms.items()}
        self.step += 1
        for role, average in self.ema.items():
            average.update(getattr(self.system, role))
        return found

    def _losses(self, phase: str, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        try:
            return self.system.losses(phase, batch, self.step)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"{self.recipe.name}: a batch norm sees one number a channel in the phase {phase}, without spread; "
                "raise train.batch or data.size, or choose another norm (--set networks.ROLE.norm=instance)"
            ) from error

    def _apply(self, phase: str, parameters: list[Tensor]) -> dict[str, Tensor]:
        """Take the optimizer's step; return the gradient's length."""
        optimizer = self.optimizers[phase]
        parameters = [p for p in parameters if p.grad is not None]
        if not parameters:
            return {}
        if self.world > 1:
            flat = torch.cat([p.grad.flatten() for p in parameters])
            flat = self._mean_over_processes(flat)
            for p, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                p.grad.copy_(grad.view_as(p))
        self.scaler.unscale_(optimizer) if self.scaler.is_enabled() else None
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if self.recipe.train.clip_gradient:  # elsewhere another pass over all gradients would multiply them by 1
            nn.utils.clip_grads_with_norm_(parameters, self.recipe.train.clip_gradient, norm)
        # A scaler meets a gradient that is not finite by a lower scale; under 1 there is nothing left to lower.
        if not torch.isfinite(norm) and (not self.scaler.is_enabled() or self.scaler.get_scale() < 1):
            raise Diverged(
                f"{self.out}: the gradient of {phase} is not finite at step {self.step}; lower optimizer.lr, set "
                f"train.clip_gradient or use --precision fp32 (the last checkpoint is whole: {self.last})"
            )
        self.scaler.step(optimizer)
        self.scaler.update()
        for role in self.system.roles(phase):
            if role in self.recipe.clip_weights:
                clip_weights(getattr(self.system, role), self.recipe.clip_weights[role])
        return {"gradient": norm} if torch.isfinite(norm) else {}

    @torch.no_grad()
    def _rehearse(self) -> None:
        """Try a validation on its first images, so that what cannot work is told before the first step.

        Raises:
            ValueError: a metric that compares with what the task does not have, or too few images for one.
        """
        few = min(self.recipe.validate.images or len(self.check), len(self.check), REHEARSAL)
        judge, system = Judge(self.recipe.validate.metrics), self._averaged()
        for batch in together(self.check, self.seed, few):
            with engine.autocast(self.device, self.dtype):
                judge.update(system.trial(self._to_device(batch)), system.span)
        if few < REHEARSAL:  # those are all there are
            judge.compute()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return every metric over the validation images, by the averaged weights; write a sample grid."""
        system = self._averaged()
        self.judge.reset()
        shown: list[Trial] = []
        for place, batch in enumerate(together(self.check, self.seed, self.recipe.validate.images)):
            torch.manual_seed(derive(self.seed, "validation", place))
            with engine.autocast(self.device, self.dtype):
                trials = system.trial(self._to_device(batch))
            self.judge.update(trials, system.span)
            if sum(len(trial.output) for trial in shown) < 4 * len(trials):
                shown += trials.values()
        if self.rank == 0:
            grid(shown, system.span, self.out / "samples" / f"{self.images:09d}.png")
        return {f"validation/{name}": value for name, value in self.judge.compute().items()}

    @torch.no_grad()
    def sample(self) -> None:
        """Write a sheet of what the system makes of its first training batch, where nothing is validated."""
        system = self._averaged()
        batch = self._to_device(next(iter(together(self.source, self.seed, 16))))
        torch.manual_seed(derive(self.seed, "sample"))
        with engine.autocast(self.device, self.dtype):
            trials = system.trial(batch)
        grid(list(trials.values()), system.span, self.out / "samples" / f"{self.images:09d}.png")

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
        header |= {"data": self._amounts, "classes": self.system.classes}
        header |= {"rate": self.rate, "rollbacks": self.rollbacks, "alarms": self.alarms.state()}
        header["sums"] = {name: float(value) for name, value in self.sums.items()}
        checkpoint.save(path, tensors, header)

    def _resume(self, path: Path) -> None:
        tensors, header = checkpoint.load(path)
        if missing := {"step", "seed", "world"} - header.keys():
            raise ValueError(f"{path}: holds weights only (no {sorted(missing)[0]}), so no run can go on from it")
        theirs, mine = Recipe.parse(header["recipe"], str(path)), self.recipe
        if theirs.name != mine.name:
            raise ValueError(f"{self.out}: holds a run of {theirs.name}, not of {mine.name}; choose another --out")
        # Lengths and logging may change between runs; what shapes the game may not.
        shaping = ("networks", "schedule", "adversarial", *TERMS, "pool", "unroll", "consensus", "data", "clip_weights")
        for key in (*shaping, "optimizer"):
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
        if (classes := header.get("classes", self.system.classes)) != self.system.classes:
            raise ValueError(
                f"{self.out}: holds a run that learnt the classes {', '.join(classes[:9])}, and the data have "
                f"{', '.join(self.system.classes[:9])}; choose another --out"
            )
        where = str(path)
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
            parameters = self._parameters(phase)
            for place, found in state.items():
                for key, value in found.items():
                    # In memory as its parameter is: a fused optimizer goes through both without looking at strides.
                    if value.dim():
                        found[key] = torch.empty_like(parameters[place], dtype=value.dtype).copy_(value)
            opt.load_state_dict({"state": state, "param_groups": opt.state_dict()["param_groups"]})
        self.step, self.best = int(header["step"]), header.get("best")
        self.rate, self.rollbacks = header.get("rate", 1.0), header.get("rollbacks", 0)
        if self.best and self.best["metric"] != self._decisive:
            self.best = None  # of another metric, which says nothing of this one
        before = header.get("data", self._amounts)
        if before != self._amounts and self.rank == 0:
            said = "goes on with other data: {} samples to learn from and {} to validate on, where there were {} and {}"
            tqdm.write(f"{self.out}: {said.format(*self._amounts, *before)}", file=sys.stderr)
        if before[1] != self._amounts[1]:
            self.best = None  # of other images
        self.alarms = Alarms(header.get("alarms"))
        self.sums = {name: torch.tensor(value, device=self.device) for name, value in header.get("sums", {}).items()}
        if header.get("scaler"):
            self.scaler.load_state_dict(header["scaler"])

    @property
    def _amounts(self) -> list[int]:
        """Samples to learn from (crops, of large photos), and to validate on."""
        return [len(self.source), 0 if self.check is None else len(self.check)]

    @property
    def _again(self) -> tuple[int, ...]:
        """What keeps a run that went back from meeting the same batches and the same noise again."""
        return (self.rollbacks,) if self.rollbacks else ()

    def _batches(self) -> dict[str, Iterator[dict[str, Tensor]]]:
        plan, schedule = self.recipe.train, self.recipe.schedule

        def begin(repeats: int, *place: str) -> Iterator[dict[str, Tensor]]:
            start = self.step * repeats * self.micros + self.rank
            seed = derive(self.seed, *place, *self._again) >> 1
            return stream(self.source, plan.batch, seed, start, self.world, plan.workers)

        if len(set(schedule.values())) > 1:
            return {phase: begin(repeats, phase) for phase, repeats in schedule.items()}
        # Phases that are equally often on look at the same batches, which are read and moved but once.
        return shared(begin(next(iter(schedule.values()))), list(schedule), plan.accumulate)

    def _set_rate(self, phase: str) -> None:
        plan = self.plans[phase]
        share = min(1.0, self.images / max(1, self.recipe.train.images))
        share = max(0.0, share - plan.decay_from) / (1 - plan.decay_from)
        factor = {"constant": 1.0, "linear": 1 - share, "cosine": 0.5 + 0.5 * math.cos(math.pi * share)}[plan.decay]
        if plan.warmup_images:
            factor *= min(1.0, (self.images + self.images_per_step) / plan.warmup_images)
        for group in self.optimizers[phase].param_groups:
            group["lr"] = plan.lr * factor * self.rate

    def _to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Move a batch where the networks are, in place: phases that share a batch know it again."""
        for name, value in batch.items():
            form = self.layout if value.dim() == 4 else torch.preserve_format
            batch[name] = value.to(self.device, non_blocking=True, memory_format=form)
        return batch

    def _mean_over_processes(self, value: Tensor) -> Tensor:
        from accelerate.utils import reduce

        return reduce(value, "mean")

    @torch.no_grad()
    def _share_statistics(self) -> None:
        """Average the running statistics, which each process gathered from its own images, over the processes.

        A pool of images is no statistic: each process keeps its own, and a resumed run goes on with the first's.
        """
        if self.world > 1:
            for module in (*self.system.modules(), *self.ema.modules()):
                for buffer in () if isinstance(module, Pool) else module.buffers(recurse=False):
                    if buffer.is_floating_point():
                        buffer.copy_(self._mean_over_processes(buffer))

    def _means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        names = [name for name in sums if not name.startswith("n/")]
        values = torch.stack([sums[name] / sums[f"n/{name}"] for name in names])
        if self.world > 1:
            values = self._mean_over_processes(values)
        return dict(zip(names, values.tolist(), strict=True))

    @property
    def _decisive(self) -> str:
        """The metric by which the best is chosen; empty where nothing is validated."""
        check = self.recipe.validate
        return check.best or (check.metrics[0] if check.metrics else "")

    def _keep_best(self, found: dict[str, float]) -> None:
        name = self._decisive
        value = found[f"validation/{name}"]
        spread = min((each for key, each in found.items() if key.startswith("validation/diversity")), default=1.0)
        # Outputs that are all alike may well be precise, or sure of their class.
        if not math.isfinite(value) or spread < COLLAPSED:
            return
        if self.best is None or is_better(name, value, self.best["value"]):
            self.best = {"metric": name, "value": value, "step": self.step, "images": self.images}
            if self.rank == 0:
                self.save(self.out / "best.safetensors", slim=True)
                if self.system.adversarial is not None:  # games collapse, and may be sent back later
                    self.save(self.out / STATE)
            self.processes.wait_for_everyone()

    def _log(self, line: dict[str, Any], board: Any) -> None:
        if self.rank:
            return
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


def shared(
    batches: Iterator[dict[str, Tensor]], phases: list[str], micros: int
) -> dict[str, Iterator[dict[str, Tensor]]]:
    """Return an iterator for each phase over the same batches, of which at most ``micros`` a repetition are kept."""
    queues: dict[str, list[dict[str, Tensor]]] = {phase: [] for phase in phases}

    def one(phase: str) -> Iterator[dict[str, Tensor]]:
        while True:
            if not queues[phase]:
                for _ in range(micros):
                    batch = next(batches)
                    for queue in queues.values():
                        queue.append(batch)
            yield queues[phase].pop(0)

    return {phase: one(phase) for phase in phases}


def grid(trials: list[Trial], span: tuple[float, float], path: Path) -> None:
    """Write samples as one PNG, cut to 256 pixels: rows of input | output | target, or a sheet of outputs."""
    from torch.nn.functional import interpolate
    from torchvision.utils import make_grid

    from img2img.imaging.picture import Picture, write

    low, high = span
    tiles, columns = [], 0
    for trial in trials:
        side = trial.output.shape[-2:]
        parts = [part for part in (trial.input, trial.output, trial.target) if part is not None]
        columns = len(parts)
        for row in zip(*parts, strict=True):
            for image in row:
                image = interpolate((image[None].float().cpu() - low) / (high - low), size=side, mode="nearest")
                image = image[..., :256, :256].clamp(0, 1)
                image = image[:, :3] if image.shape[1] >= 3 else image[:, :1].expand(-1, 3, -1, -1)
                tiles.append(image[0])
    rows = 8 if columns > 1 else 64
    tiles = tiles[: rows * columns]
    high, wide = (max(tile.shape[place] for tile in tiles) for place in (1, 2))
    tiles = [nn.functional.pad(tile, (0, wide - tile.shape[2], 0, high - tile.shape[1])) for tile in tiles]
    image = make_grid(tiles, nrow=columns if columns > 1 else max(1, round(len(tiles) ** 0.5)), padding=4)
    write(path, Picture((image.permute(1, 2, 0).numpy() * 255).round().astype("uint8")))


def curve(log: Path, path: Path) -> None:
    """Draw the validation metrics in a log against the images seen, as a PNG."""
    from matplotlib.figure import Figure

    points: dict[str, list[tuple[int, float]]] = {}
    for text in log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        for name, value in line.items():
            if name.startswith("validation/") and math.isfinite(value):
                points.setdefault(name.removeprefix("validation/"), []).append((line["images"], value))
    if not points:
        return
    panels: dict[str, list[str]] = {}
    for name in points:
        whole = name.rpartition("_")[0]  # of a direction: kid_ab
        panels.setdefault(whole if whole in points else name, []).append(name)
    figure = Figure(figsize=(7, 2.2 * len(panels)), layout="constrained")
    for place, (title, names) in enumerate(panels.items()):
        axes = figure.add_subplot(len(panels), 1, place + 1)
        for name in names:
            axes.plot(*zip(*points[name], strict=True), marker=".", label=name.removeprefix(f"{title}_"))
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize="small")
    axes.set_xlabel("training images")
    checkpoint.save_figure(figure, path)


def _paths(folders: str | Path | list[str | Path] | tuple[str | Path, ...]) -> list[Path]:
    return [Path(folder) for folder in (folders if isinstance(folders, list | tuple) else [folders])]
