"""The training loop: exact resume, kills at any moment, interrupts, validation, bad input."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import img2img
import img2img.checkpoint
import img2img.cli
from img2img.adversarial.pool import Pool
from img2img.cli import train_process
from img2img.recipe import Recipe, read
from img2img.systems.super_resolve import SuperResolve
from img2img.trainer import Trainer, derive

STEPS = {"upscaler": 2, "translator": 2, "painter": 10}  # images of one step


@pytest.fixture(scope="session")
def server():
    """Return a context whose processes start at once, since their server has imported everything."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(
        ["img2img.trainer", "img2img.cli", "torch.utils.tensorboard", "accelerate.utils", "torchvision.utils"]
    )
    return found


@pytest.fixture
def options(pages, folders, tmp_path):
    """Return a function: (page's name, run folder, changes...) -> the arguments of `img2img.train`."""

    def make(name, out, *changes):
        page = tmp_path / f"{name}.json"
        page.write_text(json.dumps(pages[name]))
        data, validation = folders[name]
        return {
            "recipe": page,
            "data": data,
            "validation": validation,
            "out": tmp_path / out,
            "set": list(changes),
            "device": "cpu",
            "precision": "fp32",
            "doctor": False,
            "progress": False,
        }

    return make


def contents(path):
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["img2img"])
    return load_file(path), header


def assert_same(one, two, header=True):
    first, second = contents(one / "last.safetensors"), contents(two / "last.safetensors")
    assert first[0].keys() == second[0].keys()
    for name, tensor in first[0].items():
        assert torch.equal(tensor, second[0][name]), name
    if header:
        assert first[1] == second[1]
    assert (one / "log.jsonl").read_text() == (two / "log.jsonl").read_text()


def wait_for(condition, process, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert process.is_alive() and time.monotonic() < end, "the run ended or hung before it was killed"
        time.sleep(0.002)


def lines(out):
    path = out / "log.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


@pytest.mark.parametrize("name", STEPS)
def test_resume_is_exact_after_a_kill(name, options, server):
    every = 20 * STEPS[name]
    kept = f"train.checkpoint_images={every}"
    whole, parts = options(name, "whole", kept), options(name, "parts", kept)
    img2img.train(**whole)
    process = server.Process(target=train_process, args=(parts,))
    process.start()
    # Some steps beyond the checkpoint, so that weights and log have moved on from it.
    wait_for(lambda: (parts["out"] / "last.safetensors").is_file() and lines(parts["out"]) > 8, process)
    process.kill()
    process.join()
    header = contents(parts["out"] / "last.safetensors")[1]
    assert header["step"] == 20, "killed too late: make the run longer"
    img2img.train(**parts)
    assert contents(whole["out"] / "last.safetensors")[1]["step"] == 40
    assert_same(whole["out"], parts["out"])
    tensors = contents(whole["out"] / "last.safetensors")[0]
    assert {name.split(".")[0] for name in tensors} >= {"ema", "optimizer", "generator"}
    if name != "painter":
        best = [load_file(run["out"] / "best.safetensors") for run in (whole, parts)]
        assert all(torch.equal(value, best[1][key]) for key, value in best[0].items())


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adamw"])
def test_resume_is_exact_for_every_optimizer(optimizer, options):
    changes = [f"optimizer.type={optimizer}", "optimizer.decay=constant", "train.log_images=2"]
    whole, parts = (options("upscaler", out, *changes) for out in ("whole", "parts"))
    img2img.train(**whole, images=16)
    img2img.train(**parts, images=8)
    img2img.train(**parts, images=16)  # a larger number of images goes on
    first, second = (load_file(run["out"] / "last.safetensors") for run in (whole, parts))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_killed_at_ten_random_moments(options, server):
    changes = ["train.checkpoint_images=10", "train.log_images=2", "train.images=2000"]
    run = options("upscaler", "run", *changes) | {"validation": None}
    out, chance, reached = run["out"], random.Random(0), 0
    log = out / "log.jsonl"
    for moment in range(10):
        before = log.stat().st_ino if moment else None
        process = server.Process(target=train_process, args=(run,))
        process.start()
        # A resumed run replaces its log by one that ends at the checkpoint.
        goal = reached // 2 + chance.randint(1, 9)
        wait_for(lambda goal=goal, before=before: lines(out) >= goal and log.stat().st_ino != before, process)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.join()
        if (out / "last.safetensors").is_file():
            header = contents(out / "last.safetensors")[1]  # whole, or this raises
            assert header["images"] >= reached, "went back"
            reached = header["images"]
        seen = [json.loads(line)["images"] for line in log.read_text().splitlines() if line.endswith("}")]
        assert max(seen) - reached <= 10 + 2, "more than one checkpoint interval was lost"
    assert reached > 0, "never came to a checkpoint"
    run["set"] = [*run["set"], f"train.images={reached + 20}"]
    img2img.train(**run)
    assert {path.name for path in out.glob(".*")} == {".lock"}, "left-overs of killed writes stay"
    images = [json.loads(line)["images"] for line in log.read_text().splitlines()]
    assert images == list(range(2, reached + 22, 2)), "a line of the log is missing or double"


def test_a_log_without_a_checkpoint_is_begun_anew(options):
    run = options("upscaler", "run")
    run["out"].mkdir()
    (run["out"] / "log.jsonl").write_text('{"step": 1, "images": 2, "old": 1}\n{"step"')
    (run["out"] / ".last.0000.partial.safetensors").write_text("half")
    (run["out"] / ".tmpAb12Cd").write_text("half")  # as safetensors calls its own
    img2img.train(**run, images=4)
    assert "old" not in (run["out"] / "log.jsonl").read_text()
    assert {path.name for path in run["out"].glob(".*")} == {".lock"}


def test_interrupt_saves_and_exits_with_130(options):
    run = options("upscaler", "run", "train.images=1000000", "train.validate_images=1000000")
    command = [sys.executable, "-m", "img2img.cli", "train", str(run["recipe"]), "--data", str(run["data"])]
    command += ["-o", str(run["out"]), "--device", "cpu", "--precision", "fp32", "--no-check"]
    command += [part for change in run["set"] for part in ("--set", change)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while lines(run["out"]) < 2 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.strip().splitlines()[-1].startswith("img2img: stopped at ")
    assert "Traceback" not in stderr
    header = contents(run["out"] / "last.safetensors")[1]
    assert header["step"] >= 4
    assert img2img.load(run["out"], device="cpu", precision="fp32").scale == 2


def test_workers_do_not_change_the_run(options):
    alone, helped = (options("translator", f"w{n}", f"train.workers={n}", "train.images=8") for n in (0, 2))
    img2img.train(**alone)
    img2img.train(**helped)
    assert_same(alone["out"], helped["out"], header=False)


def test_validation_keeps_the_best_and_draws_samples(options, monkeypatch):
    scores = iter([0.0, 10.0, 30.0, float("nan"), 20.0])  # the first is of the rehearsal
    monkeypatch.setattr("img2img.evaluation.part", lambda *_, **__: lambda output, target: torch.tensor([next(scores)]))
    run = options("upscaler", "run", "train.images=16", "train.validate_images=4", "validate.images=1")
    last = img2img.train(**run)
    assert last["validation/psnr"] == 20.0
    best, header = contents(run["out"] / "best.safetensors")
    assert header["best"] == {"metric": "psnr", "value": 30.0, "step": 4, "images": 8}
    assert {name.split(".")[0] for name in best} == {"generator"}
    assert sorted(path.name for path in (run["out"] / "samples").iterdir()) == [
        f"{images:09d}.png" for images in (4, 8, 12, 16)
    ]
    with Image.open(run["out"] / "samples" / "000000016.png") as sheet:
        assert sheet.width > 3 * 32
    assert any((run["out"] / "tensorboard").iterdir())
    assert read(run["out"] / "recipe.toml") == read(run["out"])


def test_a_lower_distance_is_better(options, monkeypatch):
    scores = iter([9.0, 3.0, 1.0, 2.0])  # the first is of the rehearsal
    monkeypatch.setattr("img2img.evaluation.part", lambda *_, **__: lambda output, target: torch.tensor([next(scores)]))
    run = options("translator", "run", "train.images=12", "train.validate_images=4", "validate.images=1")
    run["validation"] = one_pair(run["validation"], run["out"].parent / "one")
    img2img.train(**run)
    assert contents(run["out"] / "best.safetensors")[1]["best"]["value"] == 1.0


def one_pair(folder, target):
    for side in "AB":
        (target / side).mkdir(parents=True)
        shutil.copy(folder / side / "0.png", target / side)
    return target


def test_a_loss_that_is_not_finite_ends_with_one_clear_error(options, monkeypatch):
    run = options("upscaler", "run", "train.checkpoint_images=4")
    img2img.train(**run, images=4)
    before = (run["out"] / "last.safetensors").read_bytes()
    losses = SuperResolve.losses

    def bad(self, phase, batch, step):
        found = losses(self, phase, batch, step)
        return {name: value * (torch.nan if step == 3 else 1) for name, value in found.items()}

    monkeypatch.setattr(SuperResolve, "losses", bad)
    with pytest.raises(ValueError, match=r"gradient of generator is not finite at step 3; lower optimizer\.lr"):
        img2img.train(**run, images=40)
    assert (run["out"] / "last.safetensors").read_bytes() == before
    handler = signal.getsignal(signal.SIGINT)
    assert handler is signal.default_int_handler, "the caller's own handler was not put back"


def test_a_scaler_bears_a_gradient_that_is_not_finite_but_not_all_of_them(pages, folders, tmp_path, monkeypatch):
    page = pages["upscaler"]
    trainer = Trainer(Recipe.parse(page), folders["upscaler"][0], tmp_path, device="cpu", precision="fp32")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    losses = SuperResolve.losses

    def bad(self, phase, batch, step):
        found = losses(self, phase, batch, step)
        return {name: value * (torch.nan if step in (1, *range(5, 99)) else 1) for name, value in found.items()}

    monkeypatch.setattr(SuperResolve, "losses", bad)
    with pytest.raises(
        ValueError, match="gradient of generator is not finite at step 7"
    ):  # the scale: 4, 2, 1, then under 1
        trainer.run()


def test_what_only_describes_cannot_choose_the_best(pages, folders, tmp_path):
    page = pages["painter"] | {"validate": {"metrics": ["neighbour_distance"]}}
    data, held = folders["painter"]
    with pytest.raises(ValueError, match="no value of neighbour_distance is better"):
        Trainer(Recipe.parse(page), data, tmp_path, validation=held or data, device="cpu", precision="fp32")


def test_processes_share_statistics_but_not_pools():
    trainer = Trainer.__new__(Trainer)
    trainer.system = torch.nn.ModuleList([Pool(2, 1, 2), torch.nn.BatchNorm2d(3)])
    trainer.system[0](torch.ones(2, 1, 2, 2))
    trainer.ema, trainer.world = torch.nn.ModuleDict(), 2
    trainer._mean_over_processes = lambda value: value / 2
    trainer._share_statistics()
    assert (trainer.system[0].images == 1).all() and (trainer.system[1].running_var == 0.5).all()


@pytest.mark.parametrize(
    ("change", "seed", "message"),
    [
        ("networks.generator.width=8", 0, "another 'networks'"),
        ("optimizer.lr=0.5", 0, "another 'optimizer'"),
        ("train.batch=4", 0, "another seed or batch"),
        ("train.log_images=7", 1, "another seed or batch"),
    ],
)
def test_another_game_is_refused(change, seed, message, options, trained, tmp_path):
    shutil.copytree(trained["upscaler"], tmp_path / "run")
    run = options("upscaler", "run", change)
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    with pytest.raises(ValueError, match=message):
        img2img.train(**run, seed=seed)
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before


def test_another_pool_is_refused(options, trained, tmp_path):
    shutil.copytree(trained["painter"], tmp_path / "run")
    with pytest.raises(ValueError, match="another 'pool'"):
        img2img.train(**options("painter", "run", "pool=4"))


def test_a_run_from_python_goes_on(options):
    run = options("upscaler", "run") | {"set": {"optimizer.betas": (0.5, 0.9)}}
    img2img.train(**run, images=4)
    assert img2img.train(**run, images=8)["images"] == 8  # a tuple comes back from the file as a list


def test_weights_alone_cannot_be_resumed(options, trained, tmp_path):
    run = options("upscaler", "run")
    run["out"].mkdir()
    img2img.checkpoint.save(run["out"] / "last.safetensors", {}, {"recipe": read(run["recipe"]).page()})
    with pytest.raises(ValueError, match="holds weights only"):
        img2img.train(**run)


def test_an_out_folder_that_cannot_be_written(options, tmp_path, capsys):
    run = options("upscaler", "run")
    (tmp_path / "file").write_text("")
    arguments = ["train", str(run["recipe"]), "--data", str(run["data"]), "--device", "cpu", "--no-check"]
    for out in (tmp_path / "file", "/proc/img2img"):
        assert img2img.cli.main([*arguments, "-o", str(out)]) == 1
        error = capsys.readouterr().err.strip().splitlines()
        assert error[-1].startswith("img2img: ") and str(out) in error[-1], error


@pytest.mark.parametrize("kind", ["upscaler", "painter", "translator"])
def test_corrupt_images_are_named_once_and_skipped(kind, options, folders, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(folders[kind][0], folder)
    images = sorted(folder.rglob("*.png"))
    (images[0]).write_bytes(images[0].read_bytes()[:40])
    if kind == "upscaler":
        Image.new("RGB", (1, 1)).save(folder / "dot.png")  # smaller than the scale: cannot even be reduced
    run = options(kind, "run") | {"data": folder}
    img2img.train(**run, images=20)
    error = capsys.readouterr().err
    assert error.count(str(images[0])) == 1 and "(skipped)" in error
    source = Trainer(Recipe.parse(json.loads(run["recipe"].read_text())), folder, tmp_path / "x", device="cpu").source
    if kind == "upscaler":
        assert source.photos.skipped == [images[0]] and len(source.keep) == len(images) - 1
    elif kind == "painter":
        assert source.images.skipped == [images[0]] and len(source) == len(images) - 1
    else:
        assert source.stores[0].skipped == [images[0]] and len(source) == len(images) // 2 - 1


def test_a_folder_without_a_readable_image(options, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"no image")
    for kind, message in (("upscaler", "no readable image"), ("painter", "no images to train on")):
        with pytest.raises(ValueError, match=message):
            img2img.train(**options(kind, "run") | {"data": tmp_path / "data"})
    with pytest.raises(ValueError, match="no such folder"):
        img2img.train(**options("upscaler", "run") | {"data": tmp_path / "none"})


def test_noise_has_nothing_to_validate_on(options, folders):
    run = options("painter", "run", 'validate.metrics=["psnr"]') | {"validation": folders["painter"][0]}
    with pytest.raises(ValueError, match="no target"):
        img2img.train(**run)


def test_precisions_and_devices(options):
    with pytest.raises(ValueError, match="none of fp32, bf16, fp16"):
        img2img.train(**options("upscaler", "a") | {"precision": "fp8"})
    with pytest.raises(ValueError, match="fp16 on a CPU"):
        img2img.train(**options("upscaler", "a") | {"precision": "fp16"})
    with pytest.raises(ValueError, match="not available here"):
        img2img.train(**options("upscaler", "a") | {"device": "cuda:99"})
    with pytest.raises(ValueError, match="seed -1"):
        img2img.train(**options("upscaler", "a"), seed=-1)


@pytest.mark.parametrize("name", STEPS)
def test_bf16_trains_like_fp32(name, options):
    """Under bf16 the first losses agree to its eight bits, and parameters, averages and penalties stay in fp32."""
    logs = {}
    for precision in ("fp32", "bf16"):
        run = options(name, precision, f"train.log_images={STEPS[name]}", "optimizer.warmup_images=1000")
        logs[precision] = img2img.train(**run | {"precision": precision, "validation": None}, images=3 * STEPS[name])
        tensors = load_file(run["out"] / "last.safetensors")
        assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float32}
    for key, value in logs["fp32"].items():
        assert logs["bf16"][key] == pytest.approx(value, rel=0.05, abs=0.02), key


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", STEPS)
def test_gpu(name, precision, options):
    run = options(name, "gpu") | {"device": "cuda", "precision": precision}
    img2img.train(**run, images=5 * STEPS[name])
    img2img.train(**run, images=10 * STEPS[name])
    assert contents(run["out"] / "last.safetensors")[1]["step"] == 10


def test_the_rate_follows_the_page(pages, folders, tmp_path):
    page = pages["upscaler"] | {
        "optimizer": {"lr": 1.0, "decay": "cosine", "warmup_images": 8, "generator": {"lr": 2.0}}
    }
    trainer = Trainer(Recipe.parse(page), folders["upscaler"][0], tmp_path, device="cpu", precision="fp32")
    rates = []
    for step in (0, 3, 20, 40):
        trainer.step = step
        trainer._set_rate("generator")
        rates.append(trainer.optimizers["generator"].param_groups[0]["lr"])
    assert rates == pytest.approx(
        [2 * 2 / 8, 2 * (0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * 6 / 80)).item()), 1, 0]
    )


def test_accumulation_equals_a_larger_batch(options):
    """Two batches of two, accumulated, give the gradient of their four images."""
    runs = [options("upscaler", f"a{n}", f"train.accumulate={n}", f"train.batch={4 // n}") for n in (1, 2)]
    for run in runs:
        run["set"] += ['networks.generator.norm="none"', "optimizer.type=sgd", "optimizer.lr=0.1"]
        img2img.train(**run | {"validation": None}, images=8)
    first, second = (load_file(run["out"] / "last.safetensors") for run in runs)
    start = load_file_of_start(runs[0])
    for name, tensor in first.items():
        if name.startswith("generator."):
            moved = (tensor - start[name.removeprefix("generator.")]).abs().max()
            assert (tensor - second[name]).abs().max() <= 1e-3 * moved + 1e-7, name


def load_file_of_start(run):
    torch.manual_seed(0)
    from img2img.systems.system import build

    return build(read(run["recipe"]).override(run["set"])).generator.state_dict()


def test_init_takes_what_fits(options, trained, pages, capsys):
    pages["upscaler"]["init"] = {"generator": str(trained["upscaler"])}
    run = options("upscaler", "more", "networks.generator.blocks=2", "data.scale=4", "optimizer.lr=0.0")
    img2img.train(**run, images=2)
    tensors, _ = contents(run["out"] / "last.safetensors")
    theirs = img2img.checkpoint.load(trained["upscaler"] / "best.safetensors", "generator.")[0]
    assert torch.equal(tensors["generator.blocks.0.conv1.weight"], theirs["blocks.0.conv1.weight"])
    assert "init.generator" in capsys.readouterr().err, "what keeps its own start is told"
    run = options("upscaler", "none", "networks.generator={type = 'fast', width = 4, depth = 1}")
    with pytest.raises(ValueError, match="none of its weights fits"):
        img2img.train(**run, images=2)
    run = options("upscaler", "wide", "networks.generator.width=16")
    with pytest.raises(ValueError, match=r"init.generator = .*: only [\d,]+ of [\d,]+ numbers fit; give networks"):
        img2img.train(**run, images=2)


def test_two_runs_do_not_share_a_folder(options):
    from filelock import FileLock

    run = options("painter", "run")
    run["out"].mkdir()
    with FileLock(run["out"] / ".lock"), pytest.raises(ValueError, match="run: another process trains here"):
        img2img.train(**run, images=4)
    assert not (run["out"] / "last.safetensors").exists()
    assert img2img.train(**run, images=4)["step"] == 1
    (run["out"] / "log.jsonl").write_text("")
    assert img2img.train(**run, images=4) == {}, "a finished run without a log has no last line"


def test_a_run_that_goes_on_with_other_data_says_so(options, folders, tmp_path, capsys):
    run = options("upscaler", "run")
    img2img.train(**run, images=2)
    for part, folder in (("train", run["data"]), ("validation", run["validation"])):
        shutil.copytree(folder, tmp_path / part)
        shutil.copy(sorted((tmp_path / part).iterdir())[0], tmp_path / part / "more.png")
    best = contents(run["out"] / "last.safetensors")[1]["best"]
    assert "other data" not in capsys.readouterr().err
    img2img.train(**run | {"data": tmp_path / "train", "validation": tmp_path / "validation"}, images=4)
    said = capsys.readouterr().err
    assert re.search(r"other data: \d+ samples to learn from and 3 to validate on, where there were \d+ and 2", said)
    again = contents(run["out"] / "last.safetensors")[1]["best"]
    assert best["images"] == 2 and again["images"] == 4, "the best by other images does not stand"


def test_seeds_of_places():
    seeds = {derive(0, step, phase, 0, micro) for step in range(50) for phase in "ab" for micro in range(3)}
    assert len(seeds) == 300 and all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, 1, "a") == derive(0, 1, "a") != derive(1, 1, "a")


def test_an_interrupted_wait_leaves_no_process():
    assert not [child for child in multiprocessing.active_children() if child.is_alive()], os.getpid()


def test_corrupt_files_are_named_once_skipped_and_counted(options, folders, tmp_path, capsys):

    data = tmp_path / "damaged"
    shutil.copytree(folders["translator"][0], data)
    for name in ("0.png", "1.png"):
        (data / "B" / name).write_bytes((data / "B" / name).read_bytes()[:60])
    run = options("translator", "run", "train.images=4") | {"data": data, "doctor": True}
    img2img.train(**run)
    said = capsys.readouterr().err
    assert [said.count(f"B/{name}:") for name in ("0.png", "1.png", "2.png", "3.png")] == [1, 1, 0, 0]
    assert said.count("2 of 4 images cannot be read and are left out") == 1


def test_patience_stops_a_run_that_gets_no_better_and_a_curve_is_drawn(options, monkeypatch):
    scores = iter([0.0, 10.0, 20.0, *[5.0] * 50])  # the first is of the rehearsal
    monkeypatch.setattr("img2img.evaluation.part", lambda *_, **__: lambda output, target: torch.tensor([next(scores)]))
    run = options("upscaler", "run", "train.images=80", "train.validate_images=4", "validate.images=1")
    run["set"] += ["train.patience=3"]
    last = img2img.train(**run)
    assert last["images"] == 8 + 3 * 4
    with Image.open(run["out"] / "curve.png") as drawn:
        assert drawn.format == "PNG" and len(drawn.convert("RGB").getcolors(1 << 24)) > 10
    assert img2img.checkpoint.header(run["out"] / "last.safetensors")["images"] == 20
    assert img2img.train(**run) == {}, "the same command has nothing left to do"


def test_samples_are_drawn_where_nothing_is_validated(options):
    run = options("painter", "run", "train.images=20", "train.validate_images=10")
    img2img.train(**run | {"validation": None})
    with Image.open(run["out"] / "samples" / "000000020.png") as sheet:
        assert sheet.size[0] == sheet.size[1] >= 2 * 8 and len(sheet.convert("RGB").getcolors(1 << 24)) > 3


def test_phases_that_are_equally_often_on_share_their_batches():
    from img2img.trainer import shared

    numbers = ({"x": torch.tensor(place)} for place in range(100))
    phases = shared(numbers, ["generator", "discriminator"], 2)
    for step in range(3):
        seen = [[next(phases[phase]) for _ in range(2)] for phase in ("generator", "discriminator")]
        assert [batch["x"].item() for batch in seen[0]] == [2 * step, 2 * step + 1]
        assert all(a is b for a, b in zip(*seen, strict=True))


def test_a_validation_that_cannot_work_is_told_before_the_first_step(options):
    run = options("translator", "run", 'validate.metrics=["accuracy[digits]"]', 'validate.best=""')
    with pytest.raises(ValueError, match="there is no label to compare with in this task"):
        img2img.train(**run)
    run = options("translator", "run", 'validate.metrics=["fid[pixels]"]', 'validate.best=""')
    run["validation"] = one_pair(run["validation"], run["out"].parent / "one")
    with pytest.raises(ValueError, match="takes at least 2 images, not 1"):
        img2img.train(**run)
    assert not (run["out"] / "log.jsonl").exists()


@pytest.mark.parametrize("page", ["cyclegan", "cut"])
def test_outputs_are_compared_with_targets_of_true_pairs_alone(page, tmp_path, smooth):
    for place in range(4):
        for side in "AB":
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(smooth(place, 16, 16)).save(tmp_path / side / f"{place}.png")
    shrunk = ["data.size=16", "networks.generator.width=4", "networks.generator.blocks=1", "train.images=4"]
    shrunk += ["networks.discriminator.layers=1", 'validate.metrics=["l1"]', "validate.best=l1"]
    if page == "cut":
        shrunk += ["networks.projector.patches=4"]
    options = {"set": shrunk, "device": "cpu", "doctor": False, "progress": False}
    img2img.train(page, tmp_path, tmp_path / "run", validation=tmp_path, **options)
    assert "validation/l1" in (tmp_path / "run" / "log.jsonl").read_text()
    (tmp_path / "B" / "3.png").rename(tmp_path / "B" / "4.png")
    with pytest.raises(ValueError, match="metric l1: .* unless two sets hold files of the same names"):
        img2img.train(page, tmp_path, tmp_path / "other", validation=tmp_path, **options)


def test_a_validation_that_fails_costs_no_work(options, monkeypatch):
    calls = iter(range(10))

    def fails(output, target):
        if next(calls):
            raise ValueError("a reason")
        return torch.zeros(1)

    monkeypatch.setattr("img2img.evaluation.part", lambda *_, **__: fails)
    run = options("upscaler", "run", "train.images=16", "train.validate_images=8", "validate.images=1")
    with pytest.raises(ValueError, match="a reason"):
        img2img.train(**run)
    assert img2img.checkpoint.header(run["out"] / "last.safetensors")["images"] == 8


def test_the_best_of_another_metric_does_not_count(options):
    changes = ["train.images=8", "train.validate_images=8", 'validate.metrics=["l1","psnr"]']
    img2img.train(**options("translator", "run", *changes, "validate.best=l1"))
    run = options("translator", "run", *changes[1:], "train.images=16", "validate.best=psnr")
    img2img.train(**run)
    best = img2img.checkpoint.header(run["out"] / "best.safetensors")["best"]
    assert best["metric"] == "psnr" and best["images"] == 16


def test_patience_counts_validations_where_a_step_sees_more_than_one_asks_for(options, monkeypatch, capsys):
    scores = iter([0.0, 20.0, *[5.0] * 50])  # the first is of the rehearsal
    monkeypatch.setattr("img2img.evaluation.part", lambda *_, **__: lambda output, target: torch.tensor([next(scores)]))
    run = options("upscaler", "run", "train.images=80", "train.validate_images=1", "validate.images=1")
    run["set"] += ["train.patience=3"]
    last = img2img.train(**run)
    step = last["images"] // last["step"]
    assert step > 1 and last["step"] == 1 + 3
    assert "no better psnr in 3 validations" in capsys.readouterr().err


def test_going_back_needs_a_validation(options):
    with pytest.raises(ValueError, match="--rollback goes back to the best validation; give images"):
        img2img.train(**options("painter", "run") | {"validation": None, "rollback": True})


def test_other_validation_images_leave_the_held_out_ones_out_of_training(options, folders, monkeypatch):
    """A folder with train/ and validation/ inside is two sets, whatever else is validated on."""
    run, given = options("translator", "run", "train.images=2"), []
    monkeypatch.setattr(
        "img2img.trainer.Trainer", lambda page, data, out, **rest: given.append((data, rest)) or Nothing()
    )
    whole = run["data"].parent
    assert {path.name for path in whole.iterdir()} >= {"train", "validation"}
    for validation in (run["validation"], whole):
        img2img.train(**run | {"data": whole, "validation": validation})
    assert all(data == [whole / "train"] and rest["validation"] == [whole / "validation"] for data, rest in given)
    img2img.train(**run | {"data": whole, "validation": whole / "train"})
    assert given[-1][0] == [whole / "train"]


class Nothing:
    """Stands for a trainer."""

    def run(self):
        return {}


def test_a_batch_norm_of_one_number_is_told(options):
    """Halved down to a pixel, in a batch of one."""
    plan = options("translator", "run", "train.batch=1", "networks.discriminator.norm=batch", "data.size=8")
    plan["set"].append("networks.discriminator.layers=2")
    with pytest.raises(ValueError, match="a batch norm sees one number a channel in the phase discriminator"):
        img2img.train(**plan)
