"""The command line: its frozen options, exit codes, and one line for each error."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import torch
from PIL import Image

import img2img
import img2img.cli
from img2img import checkpoint
from img2img.cli import main, parser
from img2img.data.images import files_in
from img2img.data.labelled import Adaptation, labels_in
from img2img.evaluation import evaluate
from img2img.recipe import Recipe, names, read

FOLDERS = {"inputs", "out", "tile", "format", "quality", "suffix", "overwrite", "json", "device", "precision"}
OPTIONS = {
    "upscale": FOLDERS | {"model", "scale", "size"},
    "translate": FOLDERS | {"model", "direction"},
    "synthesize": {
        "model",
        "count",
        "seed",
        "label",
        "code",
        "text",
        "text_file",
        "box",
        "points",
        "truncation",
        "interpolate",
        "mix",
        "out",
        "overwrite",
        "device",
        "precision",
    },
    "classify": {"folder", "model", "out", "overwrite", "device", "precision"},
    "train": {
        *("recipe", "data", "validation", "out", "images", "seed", "set", "dry_run", "compile", "devices", "no_check"),
        *("device", "precision", "rollback"),
    },
    "evaluate": {"model", "data", "metrics", "images", "seed", "device", "precision"},
    "check": {"folders", "validation", "minimum", "paired", "unpaired", "json"},
    "prepare": {"name", "out", "source", "make", "size", "seed"},
    "models": {"pattern", "json"},
    "show": {"name"},
    "export": {"model", "out", "overwrite"},
}
"""Commands and options that scripts rely on: what is added belongs here, what is taken away breaks them."""


def commands():
    return next(action for action in parser()._actions if action.dest == "command").choices


def test_commands_and_options_are_frozen():
    found = {name: {action.dest for action in each._actions} - {"help", "debug"} for name, each in commands().items()}
    assert found == OPTIONS
    for each in commands().values():
        assert "--debug" in each.format_help() and each.description


def test_public_names_are_frozen():
    assert img2img.__all__ == [
        *("check", "describe", "evaluate", "export", "list_models", "load", "prepare"),
        *("synthesize", "train", "translate", "upscale"),
    ]
    assert all(callable(getattr(img2img, name)) for name in img2img.__all__)


def test_help_answers_at_once():
    """Neither the package nor --help imports PyTorch or anything else that is slow."""
    heavy = ["torch", "torchvision", "timm", "kornia", "cv2", "numpy", "PIL", "accelerate", "safetensors"]
    script = (
        "import sys, img2img, img2img.cli\n"
        "for arguments in (['--help'], ['upscale', '--help'], ['train', '--help'], ['--version'], ['nothing']):\n"
        "    try: img2img.cli.main(arguments)\n"
        "    except SystemExit: pass\n"
        f"print(sorted(set({heavy}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"
    for name in OPTIONS:
        assert name in done.stdout
    assert f"img2img {img2img.__version__}" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["upscale"],
        ["upscale", "a.png"],
        ["upscale", "a.png", "-o", "b", "--scale", "big"],
        ["upscale", "a.png", "-o", "b", "--precision", "fp8"],
        ["train", "wgan_gp", "--data", "x"],
        ["models", "--nothing"],
        ["upscale", "a.png", "-o", "b", "--scale", "2", "--size", "9x"],
        ["check", "a", "--paired", "--unpaired"],
        ["synthesize", "a", "-o", "b", "--seed", "-1"],
        ["synthesize", "a", "-o", "b", "--seed", str(2**63)],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "usage: img2img" in captured.err


@pytest.fixture
def failing(capsys):
    """Return a function that runs a command which must fail with one line, and returns that line."""

    def run(*arguments):
        assert main([str(each) for each in arguments]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("img2img: "), captured.err
        return lines[0]

    return run


def test_errors_are_one_line(failing, trained, photos, tmp_path):
    image = photos / "validation" / "0.png"
    assert "did you mean 'wgan_gp'" in failing("show", "wgan_pg")
    assert "no weight" in failing("upscale", image, "-o", tmp_path, "--model", "nothing-at-all")
    assert "no weight" in failing("translate", image, "-o", tmp_path, "--model", "nothing-at-all")
    assert "does not translate" in failing("translate", image, "-o", tmp_path, "--model", trained["upscaler"])
    assert "does not upscale" in failing("upscale", image, "-o", tmp_path, "--model", trained["painter"])
    assert "--quality 0" in failing("upscale", image, "-o", tmp_path, "--quality", 0, "--model", trained["upscaler"])
    assert "no such folder" in failing("check", tmp_path / "none")
    assert "unknown key 'a'" in failing("train", "wgan_gp", "--data", tmp_path, "-o", tmp_path, "--set", "a=b")
    assert "did you mean 'batch'" in failing("train", "wgan_gp", "--data", "x", "-o", "y", "--set", "train.bach=3")
    assert "no such folder" in failing("train", "wgan_gp", "--data", tmp_path / "none", "-o", tmp_path / "run")
    assert "pnsr" in failing("evaluate", trained["upscaler"], "--data", photos / "validation", "--metrics", "pnsr")
    assert "did you mean 'outlines'" in failing("prepare", "outline")
    assert "size = 64 is for pairs that are made of a folder" in failing("prepare", "digits", "--size", 64)
    assert "makes images from images" in failing("synthesize", trained["upscaler"], "-o", tmp_path / "a.png")
    assert "count" in failing("synthesize", trained["painter"], "-o", tmp_path / "a.png", "-n", 0)
    (tmp_path / "bad.toml").write_text("name = ")
    assert "bad.toml" in failing("show", tmp_path / "bad.toml")
    (tmp_path / "bad.safetensors").write_bytes(b"\0" * 100)
    assert "bad.safetensors" in failing("upscale", image, "-o", tmp_path, "--model", tmp_path / "bad.safetensors")


def test_options_that_cannot_be_are_told_once(failing, trained, photos, tmp_path):
    """Before any image is read."""
    command = ("upscale", photos / "validation", "-o", tmp_path / "out", "--model", trained["upscaler"])
    assert "scale -2.0 must be over 0" in failing(*command, "--scale", -2)
    assert "size '3840' is none of WIDTHx" in failing(*command, "--size", 3840)
    assert "tile = 1 must be 0" in failing(*command, "--tile", 1)
    assert not (tmp_path / "out").exists()
    image = photos / "validation" / "0.png"
    assert "ends like no image" in failing("upscale", image, "-o", tmp_path / "o.xyz", "--model", trained["upscaler"])
    assert "try '*zzz*'" in failing("models", "zzz*")
    train = ("train", "wgan_gp", "--data", photos, "-o", tmp_path / "run")
    assert "train.images is 0" in failing(*train, "--images", 0)
    assert "--devices 0 must be 1 or more" in failing(*train, "--devices", 0)
    draw = ("synthesize", trained["painter"], "-o")
    assert "choose one" in failing(*draw, tmp_path / "a.png", "--mix", "--interpolate", 3)
    assert "cannot write '.gif'" in failing(*draw, tmp_path / "a.gif") and not (tmp_path / "a.gif").exists()
    assert "name their folder (--from)" in failing("prepare", "--make", "edges", "-o", tmp_path / "pairs")
    assert "networks.generatr has no 'type'; did you mean 'generator'?" in failing(
        *train, "--set", "networks.generatr.width=8"
    )
    assert "'psnr' is not a list, e.g. ['psnr']" in failing(*train, "--set", "validate.metrics=psnr")


@pytest.mark.parametrize(
    "arguments",
    [
        ["upscale", "", "-o", "a"],
        ["upscale", "a", "-o", ""],
        ["train", "gan", "--data", "", "-o", "a"],
        ["train", "gan", "--data", "a", "--validation", "", "-o", "a"],
        ["evaluate", "fast.x4", "--data", ""],
        ["check", "a", ""],
        ["classify", "", "--model", "a", "-o", "a"],
        ["prepare", "--from", "", "--make", "edges", "-o", "a"],
    ],
)
def test_an_empty_name_is_not_the_current_folder(failing, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"{arguments[0]}: a name is empty" in failing(*arguments)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_to_is_called_so(failing, tmp_path, monkeypatch):
    def closed(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(tmp_path / "cache" / "decoded"))

    monkeypatch.setenv("IMG2IMG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(img2img, "check", closed)
    assert "that is the cache; set IMG2IMG_CACHE" in failing("check", tmp_path)


def test_what_is_there_is_not_replaced_unasked(failing, trained, tmp_path):
    (tmp_path / "mine.png").write_text("mine")
    for command, name in (("synthesize", "painter"), ("classify", "painter")):
        model = [trained[name]] if command == "synthesize" else [tmp_path, "--model", trained[name]]
        assert "mine.png: exists" in failing(command, *model, "-o", tmp_path / "mine.png")
    assert (tmp_path / "mine.png").read_text() == "mine"
    assert "is a folder" in failing("classify", tmp_path, "--model", trained["painter"], "-o", tmp_path)
    (tmp_path / "mine.onnx").write_text("mine")
    assert "mine.onnx: exists" in failing("export", trained["upscaler"], "-o", tmp_path / "mine.onnx")
    options = ["-n", "1", "--device", "cpu", "--precision", "fp32", "-o", str(tmp_path / "mine.png")]
    assert main(["synthesize", str(trained["painter"]), "--overwrite", *options]) == 0
    assert Image.open(tmp_path / "mine.png").size[0] > 1


def test_what_was_measured_is_not_of_a_run(pages, folders, tmp_path, capsys):
    page = pages["upscaler"] | {"measured": [{"metric": "psnr", "value": 99.0}]}
    (tmp_path / "page.json").write_text(json.dumps(page))
    command = ["train", str(tmp_path / "page.json"), "--data", str(folders["upscaler"][0]), "-o", str(tmp_path / "run")]
    assert main([*command, "--dry-run"]) == 0 and "measured" not in capsys.readouterr().out
    assert main([*command, "--images", "2", "--device", "cpu", "--precision", "fp32"]) == 0
    assert "measured" not in img2img.describe(tmp_path / "run")
    capsys.readouterr()
    assert main([*command, "--images", "2", "--device", "cpu", "--precision", "fp32"]) == 0
    captured = capsys.readouterr()
    assert (
        "2 images are done already; ask for more (--images)" in captured.err and json.loads(captured.out)["step"] == 1
    )
    pages["painter"]["name"] = "another"
    (tmp_path / "page.json").write_text(json.dumps(pages["painter"]))
    assert main([*command, "--images", "9"]) == 1
    assert "holds a run of upscaler, not of another" in capsys.readouterr().err


def test_folders_of_halves_are_told(pages, smooth, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    Image.fromarray(smooth(0, 16, 32)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "page.json").write_text(json.dumps(pages["translator"]))
    command = ["train", str(tmp_path / "page.json"), "--data", str(tmp_path / "photos"), "-o", str(tmp_path / "run")]
    assert main([*command, "--images", "2", "--device", "cpu", "--precision", "fp32"]) == 0
    told = f"{tmp_path / 'photos'}: its images are read as pairs"
    assert told in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "photos"), "--metrics", "l1"]) == 0
    assert told in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'wgan_gp'"):
        main(["show", "--debug", "wgan_pg"])


def test_an_unexpected_error_is_named(failing, monkeypatch):
    def broken(*_):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(img2img, "list_models", broken)
    assert failing("models") == "img2img: RuntimeError: first second"


def test_an_interrupt_exits_with_130(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(img2img, "list_models", interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "img2img: interrupted\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_standard_output_that_is_full_or_closed():
    command = [sys.executable, "-m", "img2img.cli", "models", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "w") as full:
        processes = [
            subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True) for out in (full, writing)
        ]
        os.close(writing)
        errors = [process.communicate()[1] for process in processes]
    assert processes[0].returncode != 0 and "No space left" in errors[0]
    assert "Traceback" not in errors[1], errors[1]


def test_models_and_show(capsys):
    assert main(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in found] == names("models", ".toml")
    for entry in found:
        assert entry.keys() == {"name", "task", "about", "paper", "weights"} and entry["about"]
    shipped = names("weights", ".safetensors")
    assert sorted(weight for entry in found for weight in entry["weights"]) == shipped
    assert main(["models", "*gan*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {name for name in names("models", ".toml") if "gan" in name}
    assert main(["show", "pix2pix"]) == 0
    assert Recipe.parse(tomllib.loads(capsys.readouterr().out)).name == "pix2pix"
    assert img2img.describe("pix2pix")["task"] == "paired"


@pytest.mark.parametrize("name", names("models", ".toml"))
def test_dry_run_prints_a_page_that_parses(name, capsys, tmp_path):
    arguments = ["--data", "nowhere", "-o", str(tmp_path / "run"), "--set", "train.batch=3", "--images", "77"]
    assert main(["train", name, *arguments, "--dry-run"]) == 0
    recipe = Recipe.parse(tomllib.loads(capsys.readouterr().out))
    assert (recipe.name, recipe.train.batch, recipe.train.images) == (name, 3, 77)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def tree(tmp_path, smooth):
    """Return a folder with two images, one of them deeper."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    Image.fromarray(smooth(0, 12, 10)).save(tmp_path / "in" / "a.png")
    Image.fromarray(smooth(1, 8, 20)).save(tmp_path / "in" / "deep" / "b.jpg")
    return tmp_path / "in"


def upscaled(tree, trained, *more):
    out = tree.parent / "out"
    arguments = ["upscale", tree, "-o", out, "--model", trained["upscaler"], "--json", "--device", "cpu", *more]
    return main([str(each) for each in arguments]), out


def test_upscale_a_folder_and_again(tree, trained, capsys):
    code, out = upscaled(tree, trained)
    facts = json.loads(capsys.readouterr().out)
    assert code == 0 and (facts["written"], facts["skipped"], facts["failed"]) == (2, 0, 0)
    assert facts["megapixels"] == pytest.approx((24 * 20 + 16 * 40) / 1e6, abs=1e-3)
    assert Image.open(out / "a.png").size == (20, 24) and Image.open(out / "deep" / "b.jpg").size == (40, 16)
    before = (out / "a.png").stat().st_mtime_ns
    code, _ = upscaled(tree, trained)
    facts = json.loads(capsys.readouterr().out)
    assert code == 0 and (facts["written"], facts["skipped"]) == (0, 2)
    (out / "a.png").unlink()
    code, _ = upscaled(tree, trained)
    assert json.loads(capsys.readouterr().out)["written"] == 1 and (out / "a.png").stat().st_mtime_ns != before
    code, _ = upscaled(tree, trained, "--scale", "1.5")  # another scale makes them anew
    assert json.loads(capsys.readouterr().out)["written"] == 2
    assert Image.open(out / "a.png").size == (15, 18)
    code, _ = upscaled(tree, trained, "--size", "100x", "--format", "webp", "--suffix=-big")
    assert json.loads(capsys.readouterr().out)["written"] == 2
    assert Image.open(out / "a-big.webp").size == (100, 120)


def test_an_unreadable_file_costs_a_line_and_the_exit_code(tree, trained, capsys):
    (tree / "bad.png").write_bytes(b"no image")
    code, out = upscaled(tree, trained)
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert code == 1 and (facts["written"], facts["failed"]) == (2, 1)
    said = [line for line in captured.err.splitlines() if "bad.png" in line]
    assert len(said) == 1 and "Traceback" not in captured.err
    assert not (out / "bad.png").exists()


def test_one_file_to_one_file(tree, trained, capsys):
    run = trained["translator"]
    target = tree.parent / "x" / "one.png"
    assert main(["translate", str(tree / "a.png"), "-o", str(target), "--model", str(run), "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "" and Image.open(target).size == (10, 12)


def test_a_full_disk_stops_the_run_with_whole_files_only(tree, trained, capsys, monkeypatch):
    import errno

    from img2img.imaging import picture

    write, done = picture.write, []

    def full(path, *args, **options):
        if done:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(path)
        write(path, *args, **options)

    monkeypatch.setattr(picture, "write", full)
    code, out = upscaled(tree, trained)
    captured = capsys.readouterr()
    assert code == 1 and "No space left on device" in captured.err
    left = [path.name for path in out.rglob("*") if path.is_file() and not path.name.endswith(".jsonl")]
    assert left == ["a.png"]
    monkeypatch.undo()
    assert upscaled(tree, trained)[0] == 0  # the same command goes on
    assert json.loads(capsys.readouterr().out)["written"] == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tree, trained, capsys):
    out = tree.parent / "out"
    out.mkdir(mode=0o500)
    assert upscaled(tree, trained)[0] == 1
    assert "Permission denied" in capsys.readouterr().err


def test_out_that_is_no_folder(tree, trained, failing):
    (tree.parent / "file").write_text("")
    options = ["--model", trained["upscaler"], "--device", "cpu"]
    assert "file" in failing("upscale", tree, "-o", tree.parent / "file", *options)
    assert "img2img" in failing("upscale", tree, "-o", "/proc/nothing/here", *options)


def test_synthesize(trained, tmp_path):
    run = str(trained["painter"])
    options = ["--seed", "5", "--device", "cpu", "--precision", "fp32"]
    assert main(["synthesize", run, "-n", "4", "-o", str(tmp_path / "sheet.png"), *options]) == 0
    assert Image.open(tmp_path / "sheet.png").size == (2 * 10 + 2, 2 * 10 + 2)
    assert main(["synthesize", run, "-n", "4", "-o", str(tmp_path / "single"), *options]) == 0
    files = sorted(path.name for path in (tmp_path / "single").iterdir())
    assert files == [f"5-{place:05d}.png" for place in range(4)]
    sheet, single = (np.asarray(Image.open(tmp_path / path)) for path in ("sheet.png", "single/5-00000.png"))
    assert np.array_equal(sheet[2:10, 2:10], single)


def test_many_texts(trained, captioned, tmp_path, failing):
    """Each line is drawn as --text would draw it; blank lines are none."""
    page = read("text_to_image").override(
        {f"networks.{role}.width": 4 for role in ("generator", "discriminator", "encoder", "reader")}
        | {"networks.generator.latent": 6, "data.size": 16, "train.batch": 4, "train.images": 40, "optimizer.lr": 0.02}
    )
    (tmp_path / "page.toml").write_text(page.toml())
    options = {"device": "cpu", "precision": "fp32", "doctor": False, "progress": False}
    img2img.train(tmp_path / "page.toml", captioned, tmp_path / "run", **options)
    (tmp_path / "texts").write_text("A red heart!\n\nsun\n  sun\n")
    command = ["synthesize", str(tmp_path / "run"), "-n", "2", "--seed", "5", "--device", "cpu", "--precision", "fp32"]
    assert main([*command, "--text-file", str(tmp_path / "texts"), "-o", str(tmp_path / "out")]) == 0
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    names = ("0001-a-red-heart", "0003-sun", "0004-sun")
    assert found == [f"{name}-{number:02d}.png" for name in names for number in range(2)]
    assert main([*command, "--text", "A red heart!", "-o", str(tmp_path / "one")]) == 0
    drawn = [np.asarray(Image.open(tmp_path / "out" / name)) for name in found]
    for number in range(2):
        assert np.array_equal(drawn[number], np.asarray(Image.open(tmp_path / "one" / f"5-{number:05d}.png")))
    assert np.array_equal(drawn[2], drawn[4]) and not np.array_equal(drawn[0], drawn[2])
    texts = ["--text-file", tmp_path / "texts"]
    assert "name a folder" in failing(*command, *texts, "-o", tmp_path / "a.png")
    assert "has no 'text' to choose" in failing("synthesize", trained["painter"], *texts, "-o", tmp_path / "out")
    (tmp_path / "texts").write_text("\n")
    assert "has no text in it" in failing(*command, *texts, "-o", tmp_path / "out")
    assert "reads no classes" in failing("classify", captioned, "--model", tmp_path / "run", "-o", tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("key", "place", "model", "other"),
    [
        ("box", (0.0, 0.0, 0.5, 0.5), "gawwn.emoji", "gawwn_points.emoji"),
        ("points", (0.5, 0.7, 0.7, 0.5, 1.0, 0.7, 0.7, 1.0), "gawwn_points.emoji", "gawwn.emoji"),
    ],
)
def test_places(key, place, model, other, tmp_path, failing):
    """What is asked for on the command line is what Python draws there, in that quarter of the image."""
    options = ["--text", "a smiling face", "-n", "1", "--device", "cpu", "--precision", "fp32", "-o", tmp_path / "out"]
    given = ",".join(str(share) for share in place)
    assert main([str(part) for part in ("synthesize", model, f"--{key}", given, *options)]) == 0
    found = np.asarray(Image.open(next((tmp_path / "out").iterdir()))).astype(int)
    controls = {"text": "a smiling face", "device": "cpu", "precision": "fp32"}
    assert np.array_equal(found, np.asarray(img2img.synthesize(model, **{key: place}, **controls)[0]))
    assert not np.array_equal(found, np.asarray(img2img.synthesize(model, **controls)[0]))
    dark = (255 - found).sum(2)
    rows, columns = (slice(16), slice(16)) if key == "box" else (slice(16, None), slice(16, None))
    assert dark[rows, columns].sum() > 0.6 * dark.sum()
    assert f"--{key} 1,x: expected X" in failing("synthesize", model, f"--{key}", "1,x", *options)
    assert "shares of the side" in failing("synthesize", model, f"--{key}", "0.1,0.2", *options)
    assert f"has no {key} to choose" in failing("synthesize", other, f"--{key}", given, *options)


def test_a_checkpoint_knows_the_classes_by_name(domains, tmp_path):
    """A folder that lacks some is judged by their numbers in training; a table says their names; a run stays theirs."""
    page = read("pixelda").override(
        {"networks.generator.width": 4, "networks.discriminator.width": 4, "networks.classifier.width": 4}
        | {"networks.classifier.classes": 3, "data.size": 8, "data.channels": 1, "data.input_channels": 1}
        | {"train.batch": 4, "train.images": 1200, "train.ema": 0.9}
    )
    (tmp_path / "page.toml").write_text(page.toml())
    for number, name in enumerate(("black", "grey", "white")):
        (tmp_path / "all" / name).mkdir(parents=True)
        for place in range(4):
            values = np.clip(np.full((8, 8), 20 + number * 100 + place * 3), 0, 255).astype("uint8")
            Image.fromarray(values).save(tmp_path / "all" / name / f"{name}{place}.png")
    shutil.copytree(tmp_path / "all", tmp_path / "some", ignore=shutil.ignore_patterns("black*"))
    options = {"device": "cpu", "precision": "fp32", "doctor": False, "progress": False}
    img2img.train(tmp_path / "page.toml", [tmp_path / "all"] * 2, tmp_path / "run", **options)
    assert checkpoint.header(tmp_path / "run" / "last.safetensors")["classes"] == ["black", "grey", "white"]
    pipe = img2img.load(tmp_path / "run", device="cpu", precision="fp32")
    judged = evaluate(pipe, [tmp_path / "some"] * 2, metrics=["target_accuracy"], progress=False)
    assert judged["target_accuracy"] == 1
    files = files_in(tmp_path / "some")
    assert pipe.classify(files) == {path: path.parent.name for path in files} and len(files) == 8
    (tmp_path / "all" / "black").rename(tmp_path / "all" / "pitch")
    with pytest.raises(ValueError, match="learnt the classes black, grey, white, and the data have grey, pitch, white"):
        img2img.train(tmp_path / "page.toml", [tmp_path / "all"] * 2, tmp_path / "run", images=1204, **options)


def test_adaptation_in_use(domains, tmp_path, capsys):
    """After pixelda: a labelled folder in the target's style, and labels of a folder that has none.

    A file that cannot be read costs its line and the exit code, and the others have their labels.
    """
    page = read("pixelda").override(
        {"networks.generator.width": 4, "networks.discriminator.width": 4, "networks.classifier.width": 4}
        | {"data.size": 16, "data.input_channels": 3, "train.batch": 5, "train.images": 20, "validate.metrics": []}
    )
    (tmp_path / "page.toml").write_text(page.toml())
    options = {"device": "cpu", "precision": "fp32", "doctor": False, "progress": False}
    img2img.train(tmp_path / "page.toml", domains, tmp_path / "run", **options)
    source, target = domains
    model = ["--model", str(tmp_path / "run"), "--device", "cpu", "--precision", "fp32"]
    assert main(["translate", str(source), *model, "-o", str(tmp_path / "like")]) == 0
    like = Adaptation([tmp_path / "like", target], 16, 3, validation=True)
    assert like.source.names == [str(place) for place in range(10)] and len(like.source) == 10
    loose = tmp_path / "loose"
    for path in target.rglob("*.png"):
        (loose / "deep").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, loose / "deep" / f"{path.parent.name}.png")
    assert main(["classify", str(loose), *model, "-o", str(tmp_path / "labels.csv")]) == 0
    shutil.copy(tmp_path / "labels.csv", loose)
    files, read_as = labels_in(loose)
    assert [path.name for path in files] == [f"{place}.png" for place in range(10)]
    system = img2img.load(tmp_path / "run", device="cpu", precision="fp32").system
    images = torch.stack([like.item(place, np.random.default_rng(0))["target"] for place in range(10)])
    assert [int(label) for label in read_as] == system.classify(images).tolist()
    (loose / "deep" / "3.png").write_bytes(b"no image")
    capsys.readouterr()
    assert main(["classify", str(loose), *model, "-o", str(tmp_path / "rest.csv")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{loose / 'deep' / '3.png'}: ") and not line.startswith("img2img")
    lines = (tmp_path / "rest.csv").read_text().splitlines()
    assert lines == ["file,label", *(f"deep/{p}.png,{label}" for p, label in enumerate(read_as) if p != 3)]
    for path in loose.rglob("*.png"):
        path.write_bytes(b"")
    assert main(["classify", str(loose), *model, "-o", str(tmp_path / "none.csv")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 10
    assert (tmp_path / "none.csv").read_text() == "file,label\n"


def test_evaluate(trained, photos, capsys):
    run, folder = str(trained["upscaler"]), str(photos / "validation")
    assert main(["evaluate", run, "--data", folder, "--metrics", "psnr,l1", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"psnr", "l1"}


def test_check(photos, tmp_path, capsys):
    assert main(["check", str(photos / "train")]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "nothing wrong" in captured.err
    shutil.copytree(photos, tmp_path / "p")
    (tmp_path / "p" / "train" / "bad.png").write_bytes(b"no image")
    shutil.copy(tmp_path / "p" / "train" / "0.png", tmp_path / "p" / "validation" / "leak.png")
    assert main(["check", str(tmp_path / "p"), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert {finding["path"].rsplit("/", 1)[1] for finding in findings} == {"bad.png", "leak.png"}
    assert all(finding.keys() == {"path", "severity", "what", "mend"} for finding in findings)
    assert main(["check", str(tmp_path / "p" / "train"), "--minimum", "70"]) == 1
    assert "smaller than 70" in capsys.readouterr().out


def test_prepare_lists_the_shelf(capsys):
    assert main(["prepare"]) == 0
    assert capsys.readouterr().out.split() == sorted(names("datasets", ".toml"))


def test_train_says_what_is_wrong_with_the_data(pages, photos, tmp_path, capsys):
    (tmp_path / "page.json").write_text(json.dumps(pages["upscaler"]))
    shutil.copytree(photos, tmp_path / "p")
    (tmp_path / "p" / "train" / "bad.png").write_bytes(b"no image")
    arguments = ["train", str(tmp_path / "page.json"), "--data", str(tmp_path / "p"), "-o", str(tmp_path / "run")]
    arguments += ["--images", "4", "--device", "cpu", "--precision", "fp32"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    line = json.loads(captured.out)
    assert line["images"] == 4 and "validation/psnr" in line  # train/ and validation/ were found
    assert captured.err.count("bad.png") == 1 and "(skipped)" in captured.err
    assert main([*arguments, "--no-check"]) == 0  # nothing left to do, which is no failure
    assert main(["show", str(tmp_path / "run")]) == 0
    assert tomllib.loads(capsys.readouterr().out.split("\n", 1)[1])["train"]["images"] == 4


def test_a_signal_while_upscaling_leaves_whole_files_only(trained, tmp_path, smooth):
    for place in range(40):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(smooth(place, 200, 200)).save(tmp_path / "in" / f"{place:02d}.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "img2img.cli", "upscale", str(tmp_path / "in"), "-o", str(out)]
    process = subprocess.Popen(
        [*command, "--model", str(trained["upscaler"]), "--device", "cpu"], stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and len(list(out.glob("[0-9]*.png"))) < 2:
        pass
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error, error
    made = [path for path in out.iterdir() if not path.name.endswith(".jsonl")]
    assert 2 <= len(made) < 40 and not [path for path in made if path.name.startswith(".")]
    for path in made:
        assert Image.open(path).size == (400, 400) and np.asarray(Image.open(path)).any()
