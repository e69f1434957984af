"""Alarms of adversarial training: the symptom by name, and what usually helps, before hours are lost."""

import re
from statistics import median
from typing import Any, NamedTuple

PATIENCE = 5
"""Log lines in a row after which a symptom is believed."""


COLLAPSED = 0.1
"""Diversity of outputs, in units of that of real images, under which they have collapsed."""


class Alarm(NamedTuple):
    """A symptom's name and one line that says what is seen and what helps."""

    name: str
    text: str


FATAL = ("collapse", "silent_generator")
"""Symptoms that a run seldom recovers from by itself."""

REMEDIES = {
    "strong_discriminator": "the discriminator tells every pair apart ({value:.2f} of them); the generator may learn "
    "nothing more: lower optimizer.discriminator.lr, add a penalty (r1) or [[augment]]",
    "lost_discriminator": "the discriminator puts fakes above real samples ({value:.2f} right); raise "
    "optimizer.discriminator.lr or schedule.discriminator",
    "silent_generator": "the generator's gradient has all but vanished ({value:.1e}); use a non-saturating loss, add a "
    "penalty (r1), or lower the discriminator's rate",
    "collapse": "the outputs hardly differ from one another any more ({value:.3f} of the real images' spread): mode "
    "collapse; lower the rates, add r1 or a relativistic loss, raise train.batch, or go back with --rollback",
}


class Alarms:
    """Watches a run's log, line by line; its state is plain data, for checkpoints.

    A symptom is told once, after ``PATIENCE`` lines in a row that show it, and again only after it has gone.
    Outputs that were diverse and are no more in a validation have collapsed at once. ``fatal`` is the text of a symptom
    that a run seldom recovers from by itself, for as long as it lasts.
    """

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        state = state or {}
        self.counts: dict[str, int] = dict(state.get("counts", {}))
        self.gradients: list[float] = list(state.get("gradients", []))
        self.diversity: float = state.get("diversity", 0.0)

    @property
    def fatal(self) -> str:
        """What was told of a fatal symptom that lasts, a run taken up again included; else nothing."""
        lasting = [name for name in FATAL if self.counts.get(name, 0) >= PATIENCE]
        return re.sub(r" \({value.*?\)", "", REMEDIES[lasting[0]]) if lasting else ""

    def state(self) -> dict[str, Any]:
        """Return what must be known to go on watching."""
        return {"counts": self.counts, "gradients": self.gradients, "diversity": self.diversity}

    def look(self, line: dict[str, Any]) -> list[Alarm]:
        """Return the alarms that a log line sets off."""
        signs: dict[str, tuple[float, bool]] = {}
        weight = 1
        for key, value in line.items():
            place, _, name = key.partition("/")
            if name.startswith("accuracy") and place == "discriminator":
                self._sign(signs, "strong_discriminator", value, value > 0.9995)
                self._sign(signs, "lost_discriminator", value, value < 0.1)
            elif name.startswith("diversity"):
                if place == "validation":
                    weight = PATIENCE if self.diversity > 0.3 else 1
                    self.diversity = max(self.diversity, value)
                self._sign(signs, "collapse", value, value < COLLAPSED)
            elif key == "generator/gradient":
                usual = median(self.gradients) if len(self.gradients) >= 5 else 0.0
                self._sign(signs, "silent_generator", value, value < 1e-12 or value < 1e-5 * usual)
                self.gradients = [*self.gradients, value][-50:]
        found = []
        for name, (value, bad) in signs.items():
            before = self.counts.get(name, 0)
            self.counts[name] = before + (weight if name == "collapse" else 1) if bad else 0
            if before < PATIENCE <= self.counts[name]:
                found.append(Alarm(name, REMEDIES[name].format(value=value)))
        return found

    @staticmethod
    def _sign(signs: dict[str, tuple[float, bool]], name: str, value: float, bad: bool) -> None:
        # Of several directions the one that is worst off counts.
        if name not in signs or bad and not signs[name][1]:
            signs[name] = (value, bad)
