"""A model or folder that will not do costs one line on stderr, alike in every tool, and exit code 1."""

import sys
from importlib import import_module

import pytest

import img2img
from img2img import checkpoint
from img2img.recipe import read
from img2img.systems.system import build

CASES = {
    "benchmark_adaptation simgan --data {none} {photos} -o {out}": "{none}: no such folder",
    "benchmark_adaptation nobody --data {photos} {photos} -o {out}": "called 'nobody'",
    "benchmark_translation nobody --data {pairs}": "called 'nobody'",
    "benchmark_translation {upscaler} --data {pairs}": "{upscaler} is no translator (task super_resolve)",
    "benchmark_translation {translator} --data {none} --metrics l1": "{none}: no such folder",
    "classifier_score nobody --data {photos}": "called 'nobody'",
    "classifier_score {painter} --data {photos}": "does not draw a class that it is asked for",
    "compare_latents {upscaler} --data {photos}": "the task super_resolve has no encoder",
    "compare_upscalers {photo} --box 0,0,8,8 --models nobody -o {out}": "called 'nobody'",
    "compare_upscalers {none} --box 0,0,8,8 --models {upscaler} -o {out}": "{none}: No such file",
    "draw_concepts nobody --label 0 -o {out}": "called 'nobody'",
    "draw_gallery --models nobody={photos} -o {out}": "called 'nobody'",
    "edit_sample nobody --brush 0,0,1,1=9 -o {out}": "called 'nobody'",
    "edit_sample {upscaler} --brush 0,0,1,1=9 -o {out}": "(task super_resolve)",
    "linear_svm nobody --data {photos}": "called 'nobody'",
    "measure_inversion {upscaler} --data {photos}": "(task super_resolve)",
    "measure_prediction nobody --data {pairs}": "called 'nobody'",
    "measure_prediction {upscaler} --data {pairs}": "{upscaler} learns from no pairs (task super_resolve)",
    "measure_prediction {translator} --data {none}": "{none}: no such folder",
    "measure_retrieval {photos} {photos} --run nobody": "called 'nobody'",
    "measure_retrieval {none} {photos}": "{none}: no such folder",
    "measure_seams nobody --image {photo}": "called 'nobody'",
    "measure_seams {upscaler} --image {photo}": "{upscaler} is no translator (task super_resolve)",
    "measure_seams {translator} --image {none}": "{none}: No such file",
    "plot_truncation nobody --data {photos} -o {out}": "called 'nobody'",
    "plot_truncation {upscaler} --data {photos} -o {out}": "(task super_resolve) does not draw one image",
    "plot_truncation {cogan} --data {pairs} -o {out}": "(task cogan) does not draw one image",
    "plot_truncation {painter} --data {none} -o {out}": "{none}: no such folder",
    "publish_weight nobody fast.x4 --data photos --shelf {out}": "called 'nobody'",
    "publish_weight {upscaler} foo --data photos --shelf {out}": "the name 'foo' is not PAGE.VARIANT",
    "train_classifier --data {photos}": "belongs to no class",
    "train_classifier --data {none}": "{none}: no such folder",
    "train_matcher --data {photos}": "{photos}: has no train/captions.csv; give a folder with train/ and validation/",
    "train_matcher --data {photo}": "{photo}: has no train/captions.csv",
}


@pytest.fixture(scope="module")
def cogan(tmp_path_factory):
    recipe = read("cogan")
    path = tmp_path_factory.mktemp("cogan") / "cogan.safetensors"
    checkpoint.save(path, build(recipe).state_dict(), {"recipe": recipe.page()})
    return path


@pytest.mark.parametrize("command", CASES)
def test_one_line(command, photos, pairs, trained, cogan, tmp_path, monkeypatch, capsys):
    names = {"photos": photos, "photo": photos / "train" / "0.png", "pairs": pairs / "validation", "cogan": cogan}
    names |= {"none": tmp_path / "none", "out": tmp_path / "out", **trained}
    tool, *arguments = [part.format(**names) for part in command.split()]
    monkeypatch.setattr(sys, "argv", [tool, *arguments])
    monkeypatch.setattr(img2img, "_loaded", {})
    with pytest.raises(SystemExit) as stop:
        import_module(tool).main()
    said = capsys.readouterr()
    assert stop.value.code == 1 and said.out == ""
    assert said.err.startswith(f"{tool}: ") and CASES[command].format(**names) in said.err
    assert said.err.count("\n") == 1 and not (tmp_path / "out").exists()
