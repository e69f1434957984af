"""What is shipped: the wheel's files, the weights and their cards, the README's map of the folders."""

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import img2img
from img2img.recipe import names, read, root

CHECKOUT = Path(img2img.__file__).parent.parent
needs_checkout = pytest.mark.skipif(not (CHECKOUT / "pyproject.toml").is_file(), reason="not a checkout")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed here, and building must not fetch it")
    source, target = tmp_path_factory.mktemp("source") / "img2img", tmp_path_factory.mktemp("wheel")
    names = ["img2img", "models", "datasets", "weights", "pyproject.toml", "README.md", "LICENSE"]
    source.mkdir()
    for name in names:
        path = CHECKOUT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.is_file():
            shutil.copy(path, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(target)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(target.glob("*.whl")), source


@needs_checkout
def test_the_wheel_holds_the_package_and_its_shelves(wheel):
    file, source = wheel
    with zipfile.ZipFile(file) as archive:
        found = archive.namelist()
        assert {name.split("/")[0] for name in found} == {"img2img", f"img2img-{img2img.__version__}.dist-info"}
        for path in (source / "img2img").rglob("*.py"):
            assert path.relative_to(source).as_posix() in found, "pyproject.toml lists the packages by hand"
        for shelf, kinds in (("models", "toml"), ("datasets", "toml"), ("weights", "safetensors json")):
            for kind in kinds.split():
                for path in (source / shelf).glob(f"*.{kind}"):
                    assert f"img2img/{shelf}/{path.name}" in found
        metadata = archive.read(f"img2img-{img2img.__version__}.dist-info/METADATA").decode()
        assert "License-Expression: MIT" in metadata
        entry = archive.read(f"img2img-{img2img.__version__}.dist-info/entry_points.txt").decode()
        assert "img2img = img2img.cli:main" in entry


@needs_checkout
def test_the_wheel_works_without_the_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel[0]) as archive:
        archive.extractall(tmp_path)
    script = (
        "import img2img, json; print(img2img.__file__); print(json.dumps([m['name'] for m in img2img.list_models()]))"
    )
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    where, models = done.stdout.splitlines()
    assert where.startswith(str(tmp_path)) and json.loads(models) == names("models", ".toml")


@needs_checkout
def test_version_and_dependencies():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert project["version"] == img2img.__version__
    listed = {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}
    extras = sum(project["optional-dependencies"].values(), [])
    optional = {re.match(r"[\w-]+", line)[0].lower() for line in extras}
    imported = set()
    for path in (CHECKOUT / "img2img").rglob("*.py"):
        for found in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE):
            imported.add(found)
    distributions = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image"}
    asked_for = {"zstandard", "torch_fidelity"}  # only where it is there, with a hint where it is not
    foreign = imported - set(sys.stdlib_module_names) - {"img2img"} - asked_for
    missing = {distributions.get(name, name).replace("_", "-") for name in foreign} - listed - optional
    assert not missing, f"imported, but not in pyproject.toml: {missing}"


@needs_checkout
def test_the_readme_lists_every_file():
    readme = CHECKOUT / "README.md"
    if not readme.is_file():
        pytest.skip("no README.md yet")
    text = readme.read_text()
    assert "## The folders" in text
    part = text.split("## The folders", 1)[1].split("\n## ", 1)[0]
    files = [*(CHECKOUT / "img2img").rglob("*.py"), *(CHECKOUT / "tools").glob("*.py")]
    missing = [path.relative_to(CHECKOUT) for path in files if path.name != "__init__.py" and path.name not in part]
    assert files and not missing, f"not in the README's map: {', '.join(map(str, missing))}"


def test_every_weight_has_a_card_that_is_true():
    shipped = names("weights", ".safetensors")
    path = root("weights") / "manifest.json"
    if not shipped and not path.is_file():
        pytest.skip("no weights yet")
    manifest = json.loads(path.read_text())
    assert sorted(manifest) == shipped
    pages = names("models", ".toml")
    for name, card in manifest.items():
        file = root("weights") / f"{name}.safetensors"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == card["sha256"], name
        assert file.stat().st_size == card["bytes"], name
        assert card["page"] == name.rsplit(".", 1)[0] and card["page"] in pages
        assert read(file).name == card["page"]


@pytest.mark.parametrize("name", names("weights", ".safetensors"))
def test_every_weight_loads_and_works(name, smooth):
    pipe = img2img.load(name, device="cpu", precision="fp32")
    assert pipe.task == read(name).task
    if pipe.task == "super_resolve":
        assert pipe.scale == int(name.rsplit(".x", 1)[1])
        image = smooth(0, 20, 24)
        big = pipe(image)
        assert big.shape == (20 * pipe.scale, 24 * pipe.scale, 3)
        small = big.reshape(20, pipe.scale, 24, pipe.scale, 3).mean((1, 3))
        assert abs(small - image).mean() < 12, "the enlargement does not show the image"
