import json
import os
import subprocess
import sys
from pathlib import Path

import benchmark_crops
import benchmark_quality
import benchmark_upscale
import cv2
import numpy as np
import pytest
import torch
import upscale_video

from img2img import checkpoint
from img2img.recipe import read
from img2img.systems.system import build

ROOT = Path(__file__).parent.parent.parent
QUICK = ("benchmark_crops", "benchmark_quality", "benchmark_upscale", "train", "upscale", "upscale_video")
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))


def run(*arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=600
    )


@pytest.fixture(scope="module")
def weight(tmp_path_factory):
    torch.manual_seed(0)
    recipe = read("fast").override({"networks.generator.width": 8, "networks.generator.depth": 1, "data.scale": 2})
    tensors = {f"generator.{key}": value for key, value in build(recipe).generator.state_dict().items()}
    path = tmp_path_factory.mktemp("weight") / "tiny.x2.safetensors"
    checkpoint.save(path, tensors, {"recipe": recipe.page()})
    return path


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for place, (height, width) in enumerate(((41, 52), (48, 40))):
        small = random.integers(0, 256, (8, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{place}.png"), cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.mark.parametrize("name", TOOLS)
def test_help_answers(name):
    found = run("-X", "importtime", ROOT / "tools" / f"{name}.py", "--help")
    assert found.returncode == 0, found.stderr[-2000:]
    assert "usage:" in found.stdout and "--" in found.stdout
    if name in QUICK:  # -X importtime lists every imported module on stderr
        assert not [line for line in found.stderr.splitlines() if line.split("|")[-1].strip() == "torch"]


def test_upscale_is_the_command(photos, weight, tmp_path):
    found = run(
        ROOT / "tools" / "upscale.py",
        photos,
        "-o",
        tmp_path / "big",
        "--model",
        weight,
        "--precision",
        "fp32",
        "--json",
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["written"] == 2
    assert cv2.imread(str(tmp_path / "big" / "0.png")).shape == (82, 104, 3)


def test_train_is_the_command(tmp_path):
    found = run(
        ROOT / "tools" / "train.py",
        "fast",
        "--data",
        tmp_path,
        "-o",
        tmp_path / "run",
        "--set",
        "train.batch=3",
        "--dry-run",
    )
    assert found.returncode == 0, found.stderr
    assert "batch = 3" in found.stdout


def clip(path, frames=5, size=(24, 16)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, size)
    for place in range(frames):
        frame = np.zeros((size[1], size[0], 3), np.uint8)
        frame[:, : size[0] // 2] = (250, 20 + 40 * place, 10)  # blue on the left, in BGR
        writer.write(frame)
    writer.release()
    return path


def test_a_clip_is_upscaled(weight, tmp_path, capsys):
    source, target = clip(tmp_path / "clip.avi"), tmp_path / "big.avi"
    assert (
        upscale_video.main(
            [str(source), "-o", str(target), "--model", str(weight), "--precision", "fp32", "--batch", "2"]
        )
        == 0
    )
    capture, given = cv2.VideoCapture(str(target)), cv2.VideoCapture(str(source))
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    for _ in range(5):
        there, frame = capture.read()
        assert there and frame.shape == (32, 48, 3)
        want = given.read()[1][4:-4, 4:8].mean((0, 1))
        assert np.abs(frame[8:-8, 8:16].mean((0, 1)) - want).max() < 18  # green grows by 40 a frame: each in its place
    assert not capture.read()[0]
    assert upscale_video.main([str(source), "-o", str(target), "--model", str(weight)]) == 1
    assert "exists" in capsys.readouterr().err


def test_a_clip_at_a_scale_between(weight, tmp_path):
    source, target = clip(tmp_path / "clip.avi", frames=2), tmp_path / "big.avi"
    options = ["--model", str(weight), "--scale", "1.5", "--tile", "32", "--precision", "fp32"]
    assert upscale_video.main([str(source), "-o", str(target), *options]) == 0
    assert cv2.VideoCapture(str(target)).read()[1].shape == (24, 36, 3)


def test_a_missing_video_costs_one_line(weight, tmp_path, capsys):
    assert upscale_video.main([str(tmp_path / "none.mp4"), "-o", str(tmp_path / "a.mp4"), "--model", str(weight)]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("upscale_video: ")


def test_quality_of_resamplers_a_weight_and_a_peer(photos, weight, tmp_path, capsys):
    pytest.importorskip("spandrel")
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    torch.save(Compact(num_feat=8, num_conv=1, upscale=2).state_dict(), tmp_path / "peer.pth")
    arguments = [
        "--data",
        photos,
        "--scale",
        2,
        "--models",
        weight,
        "--peer",
        tmp_path / "peer.pth",
        "--judges",
        "--precision",
        "fp32",
    ]
    assert benchmark_quality.main([str(each) for each in arguments]) == 0
    text = capsys.readouterr().out
    found = json.loads(text.splitlines()[-1])
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["bicubic", "Lanczos", "tiny.x2", "peer"]
    assert found["photos"] == ["0.png", "1.png"]
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")] == [
        "| ",
        "| ---",
        "| bicubic",
        "| Lanczos",
        "| tiny.x2",
        "| peer",
    ]
    assert rows["tiny.x2"]["parameters"] == sum(value.numel() for value in load_network(weight).parameters())

    # Bicubic, by hand: cut to even sides, reduced and enlarged by Pillow.
    from PIL import Image

    from img2img.metrics import psnr

    values = []
    for name in found["photos"]:
        image = Image.open(photos / name)
        target = image.crop((0, 0, image.width // 2 * 2, image.height // 2 * 2))
        small = target.resize((target.width // 2, target.height // 2), Image.Resampling.BICUBIC)
        values.append(
            psnr(
                np.asarray(small.resize(target.size, Image.Resampling.BICUBIC)),
                np.asarray(target),
                border=2,
                channel="y",
            )
        )
    assert rows["bicubic"]["psnr_y"] == pytest.approx(np.mean(values), abs=1e-9)


def load_network(path):
    from img2img.pipeline import load

    return load(path, precision="fp32").network


def test_quality_with_a_judge_and_without_its_weights(photos, weight, capsys, monkeypatch):
    from img2img.networks import features

    def judge(name, layers=()):
        if name == "hed_vgg16":
            raise ValueError("hed_vgg16: the weights cannot be fetched")
        return Edges()

    monkeypatch.setitem(features.NETWORKS, "efficientnet_lite0", judge)
    monkeypatch.setitem(features.NETWORKS, "hed_vgg16", judge)
    from img2img.metrics import perceptual

    perceptual._judge.cache_clear()
    assert benchmark_quality.main(["--data", str(photos), "--scale", "2", "--models", str(weight)]) == 0
    perceptual._judge.cache_clear()
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])
    assert found["judges"] == ["efficientnet_lite0"]
    assert "no distance by hed_vgg16: hed_vgg16: the weights cannot be fetched" in captured.err
    assert all(0 < row["efficientnet_lite0"] < 2 for row in found["rows"])


class Edges(torch.nn.Module):
    """Stands for a feature network: differences of neighbours."""

    def forward(self, x):
        return [torch.nn.functional.pad(x[..., 1:] - x[..., :-1], (0, 1)) + 0.1 * x]


def test_quality_on_the_classic_photos(weight, capsys):
    pytest.importorskip("skimage")
    assert (
        benchmark_quality.main(
            ["--classic", "--scale", "2", "--models", str(weight), "--judges", "--images", "1", "--markdown"]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert text.startswith("x2, bicubic reduction, means over 1 photos") and text.count("\n| ") == 5


def test_quality_on_damaged_photos(photos, weight, capsys):
    """Damage is the same in every run, and costs the resampler more than a plain reduction does."""
    arguments = ["--data", str(photos), "--scale", "2", "--models", str(weight), "--judges"]
    rows = []
    for kind in ("realistic", "realistic", "bicubic"):
        assert benchmark_quality.main([*arguments, "--degradation", kind]) == 0
        rows.append(json.loads(capsys.readouterr().out.splitlines()[-1])["rows"])
    assert rows[0] == rows[1] and rows[0][0]["psnr_y"] < rows[2][0]["psnr_y"]


@pytest.mark.parametrize("arguments", [[], ["--data", "x", "--classic"]])
def test_quality_wants_one_source_of_photos(arguments, capsys):
    with pytest.raises(SystemExit):
        benchmark_quality.main(arguments)
    assert "either --data FOLDER or --classic" in capsys.readouterr().err


def test_quality_refuses_another_scale(photos, weight, capsys):
    assert benchmark_quality.main(["--data", str(photos), "--scale", "4", "--models", str(weight), "--judges"]) == 1
    assert "no upscaler for x4" in capsys.readouterr().err


def test_speed_at_a_small_size(photos):
    pytest.importorskip("spandrel")
    options = [
        "--size",
        "32",
        "--repeats",
        "1",
        "--tile",
        "20",
        "--data",
        photos,
        "--only",
        "compact 64x16, *",
        "limit",
    ]
    found = run(ROOT / "tools" / "benchmark_upscale.py", *options, "--json")
    assert found.returncode == 0, found.stderr[-3000:]
    found = json.loads(found.stdout)
    contestants = found["contestants"]
    peer, ours, half = "compact 64x16, Real-ESRGAN's way", "compact 64x16, ours", "compact 64x16, ours bf16"
    assert list(contestants) == [peer, ours, *([half] if found["native_bf16"] else []), "limit"]
    for name, facts in contestants.items():
        assert facts["peak_bytes"] > 50e6
        assert facts["gflops_per_second" if name == "limit" else "megapixels_per_second"] > 0
    # Counted by hand: 3 -> 64, 16 times 64 -> 64, 64 -> 48, each 3 x 3, at 32 x 32; a product and a sum each.
    assert contestants[ours]["gflops"] == pytest.approx(2 * 9 * (3 * 64 + 16 * 64 * 64 + 64 * 48) * 32**2 / 1e9)
    assert set(found["limit_share"]) == {ours}
    rates = [contestants[name]["megapixels_per_second"] for name in (ours, peer)]
    assert found["ratios"][f"{ours} / {peer}"] == pytest.approx(rates[0] / rates[1])
    if found["native_bf16"]:
        assert found["fidelity"][half] > 30


def test_networks_without_weights_get_random_ones(tmp_path, monkeypatch):
    pytest.importorskip("spandrel")
    from img2img import recipe
    from img2img.pipeline import load

    monkeypatch.setattr(recipe, "root", lambda name, root=recipe.root: tmp_path if name == "weights" else root(name))
    found = benchmark_upscale.networks(tmp_path, {"fast.x4", "compact16", None})
    assert [(name, trained) for name, (_, trained) in found.items()] == [("compact16", False), ("fast.x4", False)]
    assert [load(path).scale for path, _ in found.values()] == [4, 4]
    again = benchmark_upscale.networks(tmp_path / "other", {"fast.x4"})
    assert again == {"fast.x4": (tmp_path / "fast.x4.safetensors", True)}  # now that the shelf has it


def test_the_peers_ways_compute_what_ours_does(tmp_path, photos, weight):
    """Whole image: the same pixels. Tiles with 10 pixels around: nearly."""
    pytest.importorskip("spandrel")
    from img2img.pipeline import load

    torch.manual_seed(0)
    torch.save({"params": benchmark_upscale.architecture("compact16").state_dict()}, tmp_path / "net.pth")
    small = tmp_path / "in"
    small.mkdir()
    image = cv2.imread(str(photos / "0.png"))[:40, :32]
    cv2.imwrite(str(small / "0.png"), image)
    want = load(tmp_path / "net.pth", precision="fp32")(image, channels="bgr", tile=0).astype(int)
    for tile, most in ((0, 1), (20, 3)):
        setup = {
            "in": small,
            "out": tmp_path / f"out{tile}",
            "file": tmp_path / "net.pth",
            "network": "compact16",
            "tile": tile,
        }
        facts = benchmark_upscale.realesrgan(setup)[0]()
        assert facts["pixels"] == 16 * 40 * 32
        got = cv2.imread(str(tmp_path / f"out{tile}" / "0.png")).astype(int)
        assert np.abs(got - want).max() <= most
    setup = {"in": small, "out": tmp_path / "plain", "file": weight, "network": "fast.x2"}
    benchmark_upscale.plain(setup)[0]()
    got = cv2.imread(str(tmp_path / "plain" / "0.png")).astype(int)
    assert np.abs(got - load(weight, precision="fp32")(image, channels="bgr", tile=0).astype(int)).max() <= 1


def test_peak_memory_is_the_childs_own():
    ballast = np.ones(60 * 2**20)  # of this process
    code = "import sys; sys.path.insert(0, sys.argv[1]); import benchmark_upscale as tool; "
    code += "x = b'1' * 2**27; print(tool.peak_bytes())"
    found = int(run("-c", code, ROOT / "tools").stdout)
    assert 2**27 < found < ballast.nbytes


def test_speed_names_its_contestants(capsys):
    assert benchmark_upscale.main(["--only", "nobody"]) == 1
    assert "no contestant is called nobody; there are: fast; " in capsys.readouterr().err


def test_the_speed_tables(capsys):
    fast = {
        "megapixels_per_second": 8.0,
        "peak_bytes": 2**29,
        "precision": "bf16",
        "gflops": 50.0,
        "pixels": 10**6,
        "network_seconds": 0.2,
    }
    contestants = {"fast bf16": fast, "limit bf16": {"gflops_per_second": 500.0, "precision": "bf16"}}
    shares = benchmark_upscale.shares(contestants)
    assert shares == {"fast bf16": {"network": pytest.approx(0.5), "file_to_file": pytest.approx(0.8)}}
    found = {
        "size": 256,
        "threads": 2,
        "repeats": 3,
        "weights": {"fast.x4": "random"},
        "contestants": contestants,
        "fidelity": {"fast bf16": 51.23},
        "ratios": {"fast bf16 / x": 160.0},
        "limit_share": shares,
    }
    text = benchmark_upscale.tables(found)
    for line in (
        "| fast bf16 | 8 | 512 | 51.2 |",
        "| fast bf16 / x | 160.00 |",
        "| 500 GFLOP/s |",
        "| fast bf16 | 50% | 80% |",
    ):
        assert line in text
    assert "random weights: fast.x4" in text


def test_crops_from_decoded_photos(photos, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("IMG2IMG_CACHE", str(tmp_path / "cache"))
    assert (
        benchmark_crops.main(["--data", str(photos), "--size", "16", "--crops", "3", "--repeats", "2", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["photos"] == 2 and found["ratio"] > 0 and found["store"] > 0
    assert not (tmp_path / "cache").exists() and os.environ["IMG2IMG_CACHE"] == str(tmp_path / "cache")
    assert benchmark_crops.main(["--data", str(photos), "--size", "96"]) == 1
    assert "lower --size" in capsys.readouterr().err


def test_crops_from_generated_photos(capsys):
    assert benchmark_crops.main(["--width", "256", "--crops", "2", "--repeats", "1"]) == 0
    assert "3 photos of 0.0 MP" in capsys.readouterr().out
