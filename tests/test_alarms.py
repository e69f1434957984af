"""Symptoms are named when they are there, once, and not otherwise."""

import pytest
import torch

import img2img
from img2img.alarms import PATIENCE, Alarms


def names(alarms, lines):
    return [[alarm.name for alarm in alarms.look(line)] for line in lines]


@pytest.mark.parametrize(
    ("key", "sick", "well", "name"),
    [
        ("discriminator/accuracy", 1.0, 0.8, "strong_discriminator"),
        ("discriminator/accuracy", 0.02, 0.5, "lost_discriminator"),
        ("generator/diversity", 0.03, 0.7, "collapse"),
        ("generator/gradient", 0.0, 1.0, "silent_generator"),
    ],
)
def test_a_symptom_is_told_once_after_several_lines_and_again_when_it_returns(key, sick, well, name):
    alarms = Alarms()
    assert names(alarms, [{key: well}] * 20) == [[]] * 20
    told = [[]] * (PATIENCE - 1) + [[name]] + [[]] * 3
    for _ in range(2):
        assert names(alarms, [{key: sick}] * (PATIENCE + 3)) == told
        assert bool(alarms.fatal) == (name in ("collapse", "silent_generator"))
        assert bool(Alarms(alarms.state()).fatal) == bool(alarms.fatal)
        assert names(alarms, [{key: well}]) == [[]]
        assert not alarms.fatal  # a run that has recovered is not sent back


def test_a_collapse_in_validation_counts_at_once_but_not_in_an_untrained_network():
    alarms = Alarms()
    assert names(alarms, [{"validation/diversity": 0.01}]) == [[]]
    assert names(alarms, [{"validation/diversity": 0.8}, {"validation/diversity": 0.05}]) == [[], ["collapse"]]


def test_the_worst_of_two_directions_counts():
    alarms = Alarms()
    line = {"validation/diversity_ab": 0.9, "validation/diversity_ba": 0.02}
    alarms.look({"validation/diversity": 0.6})
    (alarm,) = alarms.look(line)
    assert alarm.name == "collapse" and "0.020" in alarm.text and alarms.fatal


def test_watching_goes_on_after_a_checkpoint():
    line, alarms = {"generator/gradient": 1.0, "generator/diversity": 0.01}, Alarms()
    names(alarms, [line] * (PATIENCE - 1))
    again = Alarms(alarms.state())
    assert names(again, [line]) == names(alarms, [line]) == [["collapse"]]


@pytest.fixture
def collapsing(pages, squares, tmp_path, monkeypatch):
    """Return a function that trains a game whose generator collapses for good after 40 images, and returns its log."""
    import json

    from img2img.evaluation import Spread
    from img2img.systems.generate import Generate

    losses, spread = Generate.losses, [0.7]

    def sick(self, phase, batch, step):
        terms = losses(self, phase, batch, step)
        if phase == "generator":
            self.seen.clear()
            spread[0] = 0.7 if step < 20 else 0.0
            self.observe("diversity", torch.tensor(spread[0]))
        return terms

    monkeypatch.setattr(Generate, "losses", sick)
    monkeypatch.setattr(Spread, "compute", lambda self: spread[0])
    page = pages["painter"]
    page["schedule"] = {"generator": 1, "discriminator": 1}
    page["train"] = {"images": 80, "batch": 2, "log_images": 2, "validate_images": 20, "ema": 0.5}
    page["validate"] = {"metrics": ["fid[pixels]"]}
    (tmp_path / "page.json").write_text(json.dumps(page))

    def train(**options):
        options |= {"validation": squares, "device": "cpu", "precision": "fp32", "doctor": False, "progress": False}
        try:
            return img2img.train(tmp_path / "page.json", squares, tmp_path / "run", **options)
        finally:
            with open(tmp_path / "run" / "log.jsonl") as file:
                train.log = [json.loads(line) for line in file]

    return train


def test_a_collapse_is_named_in_the_log_with_a_remedy(collapsing, capsys):
    collapsing()
    alarms = [line for line in collapsing.log if "alarm" in line and line["alarm"] == "collapse"]
    assert len(alarms) == 1 and 40 < alarms[0]["images"] <= 40 + 2 * PATIENCE and "r1" in alarms[0]["text"]
    assert "mode collapse" in capsys.readouterr().err
    assert collapsing.log[-1]["images"] == 80


@pytest.mark.parametrize("rollback", [False, True])
def test_what_has_collapsed_is_never_the_best(collapsing, tmp_path, monkeypatch, rollback):
    """Outputs that are all alike may be the most precise; a metric that falls with every validation would have them."""
    from img2img import checkpoint
    from img2img.evaluation import Judge

    values, compute = iter(range(1000, 0, -1)), Judge.compute
    monkeypatch.setattr(Judge, "compute", lambda self: compute(self) | {"fid[pixels]": float(next(values))})
    if rollback:
        with pytest.raises(ValueError, match="mode collapse"):
            collapsing(rollback=True)
        images = [line["images"] for line in collapsing.log if "generator/diversity" in line]
        assert images == sorted(set(images)), "what was gone back over is in the log once"
    else:
        collapsing()
    for name in ("best", "best.state"):
        assert checkpoint.header(tmp_path / "run" / f"{name}.safetensors")["images"] == 40


def test_a_run_goes_back_thrice_at_half_the_rate_and_then_gives_up(collapsing, tmp_path):
    from img2img import checkpoint

    with pytest.raises(ValueError, match="mode collapse"):
        collapsing(rollback=True)
    back = [line for line in collapsing.log if line.get("alarm") == "rollback"]
    assert [line["text"].split("at ")[1].split()[0] for line in back] == ["0.5", "0.25", "0.125"]
    header = checkpoint.header(tmp_path / "run" / "last.safetensors")
    assert header["rate"] == 0.125 and header["rollbacks"] == 3
    best = checkpoint.header(tmp_path / "run" / "best.state.safetensors")["best"]
    assert {line["images"] for line in back} == {best["images"]}


def test_a_collapsed_run_goes_back_when_it_is_taken_up_again(collapsing, tmp_path):
    """As the alarm advises: the state to go back to is there without the flag."""
    collapsing(images=70)
    assert not [line for line in collapsing.log if line.get("alarm") == "rollback"]
    with pytest.raises(ValueError, match="mode collapse|hardly differ"):
        collapsing(rollback=True)
    back = [line for line in collapsing.log if line.get("alarm") == "rollback"]
    assert len(back) == 3 and back[0]["images"] <= 40
    assert not [line for line in collapsing.log if line.get("alarm") == "diverged"]
