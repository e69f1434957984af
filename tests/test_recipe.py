"""Pages: what is wrong with one is said with the page's name and the key."""

import copy
import json
import random
import tomllib

import pytest

from img2img.recipe import Recipe, locate, names, read, root
from img2img.registry import bounded
from img2img.systems.system import build


def refused(page, *words, where="my page"):
    with pytest.raises(ValueError, match=where) as caught:
        Recipe.parse(page, where)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def changed(page, key, value):
    page = copy.deepcopy(page)
    *path, last = key.split(".")
    here = page
    for step in path:
        here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
    here[last] = value
    return page


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("fidelty", [], ["unknown key 'fidelty'", "did you mean 'fidelity'?"]),
        ("data.sise", 3, ["data", "'sise'", "did you mean 'size'?"]),
        ("train.bach", 3, ["train", "'bach'", "did you mean 'batch'?"]),
        ("optimizer.learning", 3, ["optimizer", "'learning'"]),
        ("optimizer.generator", {"lrr": 1}, ["optimizer", "'lrr'", "did you mean 'lr'?"]),
        ("optimizer.generator", 3, ["optimizer", "'generator'"]),
        ("optimizer.generatr", {"lr": 1.0}, ["optimizer.generatr", "did you mean 'generator'?"]),
        ("optimizer.betas", [0.9], ["optimizer.betas"]),
        ("optimizer.betas", [0.9, 1.5], ["optimizer.betas"]),
        ("optimizer.betas", 0.9, ["optimizer.betas"]),
        ("optimizer.lr", "fast", ["optimizer.lr", "'fast' is not a number"]),
        ("optimizer.lr", float("nan"), ["optimizer.lr", "finite"]),
        ("optimizer.lr", -1.0, ["optimizer.lr"]),
        ("optimizer.type", "adm", ["optimizer.type", "did you mean 'adam'?"]),
        ("optimizer.decay", "cosin", ["did you mean 'cosine'?"]),
        ("networks.generator.widht", 3, ["networks.generator", "no option 'widht'", "did you mean 'width'?"]),
        ("networks.generator.width", "wide", ["networks.generator.width", "whole number"]),
        ("networks.generator.width", 1.5, ["networks.generator.width", "whole number"]),
        ("networks.generator.width", True, ["networks.generator.width", "whole number"]),
        ("networks.generator.norm", "bach", ["networks.generator.norm", "did you mean 'batch'?"]),
        ("networks.generator.type", "unt", ["networks.generator", "did you mean 'unet'?"]),
        ("networks.generator", {"width": 4}, ["networks.generator", "'type'"]),
        ("networks.generator", "unet", ["networks.generator", "table"]),
        ("networks", [], ["networks", "table"]),
        ("schedule", {}, ["schedule is empty"]),
        ("schedule", {"generatr": 1}, ["did you mean 'generator'?"]),
        ("schedule.generator", 0, ["schedule.generator"]),
        ("schedule.generator", 1.5, ["schedule.generator"]),
        ("schedule.generator", "5", ["schedule.generator"]),
        ("adversarial.type", "hing", ["adversarial", "did you mean 'hinge'?"]),
        ("adversarial.weight", "much", ["adversarial.weight"]),
        ("adversarial", None, ["'adversarial' is missing"]),
        ("penalty", {"type": "r1"}, ["penalty", "list"]),
        ("penalty", [{"type": "r1", "wieght": 1}], ["penalty", "'wieght'", "did you mean 'weight'?"]),
        ("penalty", [{"type": "r1", "every": 0}], ["penalty", "every"]),
        ("penalty", [{"type": "r1", "every": 1.5}], ["penalty", "every"]),
        ("penalty", [{"type": "gradient_penalty", "traget": 1}], ["did you mean 'target'?"]),
        ("penalty", ["r1"], ["penalty", "table"]),
        ("fidelity", [{"type": "l2"}], ["fidelity", "did you mean 'l1'?"]),
        ("fidelity", [{"type": "charbonnier", "epsilon": "small"}], ["fidelity", "epsilon"]),
        ("clip_weights", {"critic": 0.1}, ["'critic' is no network"]),
        ("clip_weights", {"discriminator": "x"}, ["clip_weights.discriminator"]),
        ("clip_weights", {"discriminator": 0.0}, ["clip_weights.discriminator"]),
        ("init", {"generator": 5}, ["init.generator"]),
        ("init", {"genrator": "x"}, ["did you mean 'generator'?"]),
        ("data.size", 0, ["data.size"]),
        ("data.channels", 2, ["data.channels"]),
        ("data.flip", 1, ["data.flip", "true or false"]),
        ("data.degradation", {"type": "cubic"}, ["data.degradation", "did you mean 'bicubic'?"]),
        ("data.degradation", "bicubic", ["data.degradation"]),
        ("train.images", 10.5, ["train.images"]),
        ("train.batch", -1, ["train.batch"]),
        ("train.ema", 1.0, ["train.ema"]),
        ("train.log_images", 0, ["train.log_images"]),
        ("train.checkpoint_images", 0, ["train.checkpoint_images"]),
        ("train.clip_gradient", -1.0, ["train.clip_gradient"]),
        ("train", 5, ["train"]),
        ("validate.metrics", ["pnsr"], ["did you mean 'psnr'?"]),
        ("validate.metrics", "psnr", ["validate.metrics"]),
        ("validate.best", "psnr", ["validate.best"]),
        ("task", "pared", ["task", "did you mean 'paired'?"]),
        ("task", 3, ["task"]),
        ("name", None, ["'name' is missing"]),
        ("deviations", [1], ["deviations"]),
        ("measured", [{"x": 2**70}], ["too large"]),
        ("measured", [{"x": object()}], ["object"]),
        ("data.size", 2**70, ["too large"]),
        ("optimizer.lr", 10**400, ["too large"]),
    ],
)
def test_a_wrong_key_is_named_with_the_mend(key, value, words, pages):
    refused(changed(pages["translator"], key, value), *words)


def test_games_that_cannot_be_played(pages):
    page = copy.deepcopy(pages["translator"])
    del page["networks"]["discriminator"], page["schedule"]["discriminator"]
    refused(page, "needs a network 'discriminator'")
    page = pages["upscaler"] | {"fidelity": []}
    refused(page, "what to learn")
    page = pages["upscaler"]
    page["networks"] = {"enlarger": page["networks"]["generator"]}
    page["schedule"] = {"enlarger": 1}
    with pytest.raises(ValueError, match="needs a network 'generator'"):
        build(Recipe.parse(page))
    page = changed(pages["translator"], "networks.training", {"type": "mlp", "inputs": 1})
    with pytest.raises(ValueError, match="cannot be called 'training'"):
        build(Recipe.parse(page))


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("train.batch=8", "train.batch", 8),
        ("train.ema = 0.5", "train.ema", 0.5),
        ("networks.generator.width=32", "networks.generator.width", 32),
        ("networks.generator.norm=none", "networks.generator.norm", "none"),
        ("networks.generator.norm='none'", "networks.generator.norm", "none"),
        ("penalty.0.weight=7.5", "penalty.0.weight", 7.5),
        ("optimizer.betas=[0.1, 0.2]", "optimizer.betas", [0.1, 0.2]),
        ("optimizer.discriminator.lr=0.5", "optimizer.discriminator.lr", 0.5),
        ("data.degradation.type=bicubic", "data.degradation.type", "bicubic"),
        ("init.generator=a=b", "init.generator", "a=b"),
        ("adversarial={type = 'hinge', weight = 2.0}", "adversarial.weight", 2.0),
        ("about=two\nlines = 3", "about", "two\nlines = 3"),
        ("data.flip=false", "data.flip", False),
    ],
)
def test_set(change, path, value, pages):
    recipe = Recipe.parse(pages["translator"])
    key, _, text = change.partition("=")
    found = recipe.override([f"{key.strip()}={text}"]).page()
    for step in path.split("."):
        found = found[int(step)] if isinstance(found, list) else found[step]
    assert found == value
    assert recipe == Recipe.parse(pages["translator"]), "the original changed"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.batch", "expected KEY=VALUE, e.g. networks.generator.width=32"),
        ("train.bach=3", "did you mean 'batch'"),
        ("trian.batch=3", "did you mean 'train'"),
        ("penalty.5.weight=1", "--set penalty.5.weight: no such key in translator"),
        ("penalty.first.weight=1", "no such key"),
        ("name.first=1", "no such key"),
        ("train.batch.size=1", "no such key"),
        ("train.batch=many", "train.batch"),
        ("=5", "unknown key ''"),
        ("networks.discriminator.type=fast", "no option"),
        ("measured=" + "[" * 2000, "measured"),
        ("measured=" + "[" * 30 + "]" * 30, "nested too deeply"),
    ],
)
def test_set_what_cannot_be(change, words, pages):
    with pytest.raises(ValueError, match=".") as caught:
        Recipe.parse(pages["translator"]).override([change])
    assert words in str(caught.value)


def test_json_toml_and_headers_say_the_same(pages, trained, tmp_path):
    recipe = Recipe.parse(pages["translator"])
    (tmp_path / "a.toml").write_text(recipe.toml())
    (tmp_path / "a.json").write_text(json.dumps(recipe.page()))
    assert read(tmp_path / "a.toml") == read(tmp_path / "a.json") == recipe
    assert read(trained["translator"]).networks == recipe.networks  # from the header of a checkpoint
    assert read(str(trained["translator"] / "last.safetensors")).networks == recipe.networks
    dated = recipe.toml() + "[[measured]]\ndate = 2026-01-02\ntime = 10:00:00\n"
    (tmp_path / "b.toml").write_text(dated)
    assert json.loads(json.dumps(read(tmp_path / "b.toml").page()))["measured"][0]["date"] == "2026-01-02"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "name = "),
        ("a.toml", b"\xff\xfe\x00"),
        ("a.toml", "x = " + "[" * 100_000),
        ("a.toml", ".".join(["a"] * 5000) + " = 1"),
        ("a.toml", "name = 0x" + "f" * 9000),
        ("a.toml", "measured = [{x = 0x" + "f" * 9000 + "}]"),
        ("a.toml", "name = " + "9" * 9000),
        ("a.json", "[" * 100_000),
        ("a.json", '{"a":' * 900 + "1" + "}" * 900),
        ("a.json", "9" * 9000),
        ("a.json", "[]"),
        ("a.json", "null"),
        ("a.json", '{"name": "\\ud800"}'),
        ("a.json", ""),
    ],
)
def test_hostile_files(name, text, tmp_path):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"a\.(toml|json)"):
        read(path)


VALUES = [
    None,
    -1,
    0,
    1,
    7,
    2**31,
    2**62,
    2**70,
    -(2**70),
    0.0,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
    True,
    "",
    "l1",
]
VALUES += ["unet", "\0", "x" * 5000, "é\ud800", [], {}, [[]], [{}], {"type": "l1"}, {"type": 1}, [1, 2, 3], ["psnr"]]


def places(page, path=()):
    for key, value in page.items() if isinstance(page, dict) else enumerate(page):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def mutated(page, chance):
    page = copy.deepcopy(page)
    for _ in range(chance.randint(1, 3)):
        spots = list(places(page))
        if not spots:
            return page
        *path, last = chance.choice(spots)
        here = page
        for step in path:
            here = here[step]
        match chance.randrange(4):
            case 0 if isinstance(here, dict):
                del here[last]
            case 1 if isinstance(here, dict):
                here[chance.choice(["x", "type", "lr", "generator", "", "a.b", str(last)[:-1]])] = here.pop(last)
            case _:
                here[last] = copy.deepcopy(chance.choice(VALUES))
    return page


def test_mutated_pages_raise_nothing_but_value_errors(pages):
    chance, good = random.Random(0), 0
    for number in range(600):
        page = mutated(pages[chance.choice(sorted(pages))], chance)
        try:
            recipe = Recipe.parse(page, "my page")
        except ValueError as error:
            assert str(error).startswith("my page"), (number, str(error)[:300])
            assert len(str(error)) < 20_000
            continue
        assert Recipe.parse(json.loads(json.dumps(recipe.page()))) == recipe, number
        try:
            with bounded(10**6):
                build(recipe)
            good += 1
        except ValueError:
            continue
    assert good > 20


def test_mutated_files_raise_nothing_but_value_errors(pages, tmp_path):
    chance, good = random.Random(1), 0
    whole = Recipe.parse(pages["translator"]).toml().encode()
    path = tmp_path / "page.toml"
    for number in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 2)):
            spot = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[spot] = chance.randrange(256)
                case 1:
                    del data[spot : spot + chance.randint(1, 20)]
                case _:
                    data[spot:spot] = chance.choice([b"\n", b'"', b"[", b"}", b"9" * 30, b"= 1\n", b"\xff", b"#"])
        path.write_bytes(bytes(data))
        try:
            read(path)
            good += 1
        except ValueError as error:
            assert "page.toml" in str(error), (number, str(error))
    assert good > 2


def test_a_folder_of_results_hides_no_weight(tmp_path, monkeypatch):
    """`upscale -o fast.x4 --model fast.x4` runs twice."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fast.x4").mkdir()
    assert locate("fast.x4", weights=True) == root("weights") / "fast.x4.safetensors"


def test_locate(tmp_path, trained):
    assert locate("wgan_gp") == root("models") / "wgan_gp.toml"
    assert locate(trained["upscaler"]).name == "best.safetensors"
    assert locate(trained["painter"]).name == "last.safetensors"
    with pytest.raises(ValueError, match="did you mean 'wgan_gp'"):
        locate("wgan-gp")
    with pytest.raises(ValueError, match="a folder without best"):
        locate(tmp_path)
    with pytest.raises(ValueError, match="no weight, file or run folder called 'nothing at all'"):
        locate("nothing at all", weights=True)
    for outside in ("../pyproject", "../models/fast", "/etc/passwd.toml"):
        with pytest.raises(ValueError, match="no model, file or run folder"):
            locate(outside)


def test_the_shelves_hold_data_only():
    for shelf in ("models", "datasets", "weights"):
        assert root(shelf).is_dir() and not list(root(shelf).glob("**/*.py"))
    assert {"fast", "pix2pix", "srresnet", "wgan_gp"} <= set(names("models", ".toml"))
    for path in root("models").glob("*.toml"):
        assert tomllib.loads(path.read_text())["name"] == path.stem
