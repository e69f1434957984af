"""The training benchmark: both contestants play the same game."""

import json

import benchmark_training as speed
import pytest
import torch

GAMES = ["pix2pix 256", "cyclegan 128", "dcgan 64", "wgan_gp critic 64"]


@pytest.mark.parametrize("name", GAMES)
def test_first_steps_are_the_same(tmp_path, name):
    page = speed.recipe(name, size=32, width=4)
    speed.images(tmp_path, page.page())
    differences = speed.compare(page, speed.PLAIN[speed.GAMES[name]["plain"]], tmp_path, "fp32")
    worst = speed.worst_of(differences)
    assert worst["losses"] < 1e-4 and worst["gradients"] < 1e-2
    roles = {key.removesuffix(" gradient") for key in differences if key.endswith(" gradient")}
    assert roles == set(page.schedule)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pix2pix 256", {"fidelity.0.weight": 90.0}),
        ("cyclegan 128", {"fidelity.1.weight": 4.0}),
        ("wgan_gp critic 64", {"penalty.0.weight": 8.0}),
        ("dcgan 64", {"adversarial.type": "least_squares"}),
    ],
)
def test_another_game_is_seen(tmp_path, name, change):
    """The plain form is built from the page as it is, ours from a changed one."""
    page = speed.recipe(name, size=32, width=4)
    speed.images(tmp_path, page.page())
    build = speed.PLAIN[speed.GAMES[name]["plain"]]
    differences = speed.compare(page.override(change), lambda _, begin: build(page, begin), tmp_path, "fp32")
    worst = speed.worst_of(differences)
    assert worst["losses"] > speed.TOLERANCE["losses"] and worst["gradients"] > speed.TOLERANCE["gradients"] / 5


def test_another_network_is_refused(tmp_path):
    page = speed.recipe("pix2pix 256", size=32, width=4)
    speed.images(tmp_path, page.page())
    other = page.override({"networks.discriminator.layers": 2})
    with pytest.raises(ValueError, match="pix2pix: its discriminator is no longer the one"):
        speed.compare(other, speed.pix2pix, tmp_path, "fp32")


def test_the_critics_gradient_in_few_bits(tmp_path):
    """Nothing differs in fp32; in bf16 something does, and the three numbers form a triangle."""
    page = speed.recipe("wgan_gp critic 64", size=16, width=4)
    speed.images(tmp_path, page.page())
    for found in speed.narrow(page, tmp_path, "fp32").values():
        assert found == {"difference": 0, "length": pytest.approx(1), "cosine": pytest.approx(1)}
    both = speed.narrow(page, tmp_path)
    assert both.keys() == {"with the penalty", "without"} and both["without"] != both["with the penalty"]
    for found in both.values():
        difference, length, cosine = found.values()
        assert 1e-4 < difference < 0.3 and cosine > 0.95
        assert difference**2 == pytest.approx(1 + length**2 - 2 * length * cosine, abs=1e-9)


def test_plain_steps_learn(tmp_path):
    """The timed form takes real steps of its optimizers."""
    page = speed.recipe("cyclegan 128", size=32, width=4)
    speed.images(tmp_path, page.page())
    game = speed.cyclegan(page, lambda phase: None)
    batch = speed.first_batch(speed.trainer_of(page, tmp_path, "fp32"))
    before = {role: [p.clone() for p in network.parameters()] for role, network in game.networks.items()}
    losses = [sum(v.item() for k, v in game.step(batch).items() if "l1" in k) for _ in range(15)]
    assert losses[-1] < losses[0]
    for role, network in game.networks.items():
        assert not any(torch.equal(a, b) for a, b in zip(before[role], network.parameters(), strict=True))


def test_runs_from_the_command_line(monkeypatch, capfd):
    monkeypatch.setattr(speed, "WAYS", ("plain", "fp32"))  # a process less
    options = ["--only", "wgan*", "--size", "16", "--width", "4", "--repeats", "2", "--threads", "1", "--json"]
    assert speed.main(options) == 0
    found = json.loads(capfd.readouterr().out)
    facts = found["games"].pop("wgan_gp critic 64")
    assert not found["games"] and found["threads"] == 1 and found["repeats"] == 2
    assert list(facts["seconds"]) == ["plain", "fp32"] and all(0 < value < 60 for value in facts["seconds"].values())
    assert list(facts["ratios"]) == list(facts["differences"]) == ["fp32"]


def test_a_game_without_a_plain_form_is_timed_alone(monkeypatch, capfd):
    monkeypatch.setattr(speed, "WAYS", ("plain", "fp32"))
    options = ["--only", "cut*", "--size", "32", "--width", "4", "--repeats", "1", "--threads", "1"]
    assert speed.main(options) == 0
    row = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("| cut 128 |"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells[0] == cells[2] == "" and 0 < float(cells[1]) < 60 and not any(cells[3:])


def test_the_tables():
    differences = {"generator/l1": 1e-7, "generator gradient": 2e-3, "discriminator gradient": 1e-6}
    game = {
        "seconds": {"plain": 2.0, "fp32": 1.0, "bf16": 0.5},
        "ratios": {"fp32": 2.0, "bf16": 4.0},
        "differences": {"fp32": differences, "bf16": {"generator/l1": 0.01, "generator gradient": 0.3}},
    }
    text = speed.tables({"threads": 2, "repeats": 3, "games": {"a game": game}})
    assert "2 threads, medians of 3 interleaved repetitions" in text
    assert "| a game | 2 | 1 | 0.5 | 2.00 | 4.00 |" in text
    assert "| a game | 1.0e-07 | 2.0e-03 | 1.0e-02 | 3.0e-01 |" in text
    game["bf16 gradient"] = {"without": {"difference": 0.02, "cosine": 0.99981}}
    said = speed.tables({"threads": 2, "repeats": 3, "games": {"a game": game}}).splitlines()[-1]
    assert said == "a game: the critic's gradient in bf16 against fp32, without: difference 0.02, cosine 0.9998"
    only = speed.tables({"threads": 2, "repeats": 0, "games": {"a game": {"differences": {"fp32": differences}}}})
    assert "times as fast" not in only and "| a game | 1.0e-07 | 2.0e-03 |  |  |" in only


def test_a_different_game_fails_the_command(monkeypatch, capsys):
    found = {"threads": 1, "repeats": 0, "games": {"x": {"differences": {"fp32": {"generator/l1": float("nan")}}}}}
    monkeypatch.setattr(speed, "benchmark", lambda options: found)
    assert speed.main([]) == 1 and "not the same game: x" in capsys.readouterr().err


def test_games_are_named(capsys):
    assert speed.main(["--only", "nobody"]) == 1
    assert "no game is called nobody; there are: pix2pix 256; " in capsys.readouterr().err
    assert speed.main(["--repeats", "-1"]) == 1
