"""Checkpoint files: whole or not at all, and whatever a file holds, `load` works or says what is wrong."""

import json
import os
import random
import resource
import struct
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import save_file

import img2img
from img2img import checkpoint
from img2img.recipe import Recipe
from img2img.systems.system import build, restore


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomic_replaces_the_file_when_all_went_well(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with checkpoint.atomic(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".txt" and temporary.name.startswith(".")
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one" and files(path.parent) == ["a.txt"]


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt, ValueError])
def test_atomic_leaves_the_old_file_after_a_failure(failure, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(failure if isinstance(failure, type) else type(failure)), checkpoint.atomic(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old" and files(tmp_path) == ["a.txt"]
    with pytest.raises(FileNotFoundError), checkpoint.atomic(path):
        pass  # nothing was written
    assert path.read_text() == "old" and files(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    """The limit on a file's size stands for the full disk: writing stops in the middle."""
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"x": torch.zeros(10)}, {"recipe": {}})
    before = path.read_bytes()
    script = (
        "import resource, signal, sys, torch; from img2img import checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: checkpoint.save(sys.argv[1], {'x': torch.zeros(10**6)}, {'recipe': {}})\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout and done.stdout.startswith("OSError"), done.stdout
    assert path.read_bytes() == before and files(tmp_path) == ["a.safetensors"]


def test_round_trip(tmp_path):
    tensors = {
        "a.half": torch.randn(3, 4).to(torch.bfloat16),
        "a.last": torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last),
        "a.part": torch.arange(12).reshape(3, 4)[:, ::2],
        "b.scalar": torch.tensor(3),
        "b.empty": torch.zeros(0, 3),
    }
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, tensors, {"recipe": {"name": "x"}, "n": 1})
    found, header = checkpoint.load(path)
    assert header == checkpoint.header(path) == {"recipe": {"name": "x"}, "n": 1}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
    assert checkpoint.load(path, "b.")[0].keys() == {"scalar", "empty"}
    assert checkpoint.ours(path)
    save_file({"x": torch.zeros(1)}, tmp_path / "theirs.safetensors")
    assert not checkpoint.ours(tmp_path / "theirs.safetensors")
    with pytest.raises(ValueError, match="holds no img2img recipe"):
        checkpoint.header(tmp_path / "theirs.safetensors")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX'")
def test_others_may_read_what_the_umask_allows(tmp_path):
    (tmp_path / "plain").touch()
    checkpoint.save(tmp_path / "x.safetensors", {"a": torch.zeros(2)}, {})
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_fit(tmp_path):
    net, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    assert checkpoint.fit(net, other.state_dict(), "x") == []
    assert torch.equal(net.weight, other.weight)
    with pytest.raises(ValueError, match=r"x: weight 'bias' does not fit the recipe \(file None, network \(3,\)\)"):
        checkpoint.fit(net, {"weight": net.weight}, "x")
    with pytest.raises(ValueError, match=r"weight 'more' does not fit"):
        checkpoint.fit(net, other.state_dict() | {"more": torch.zeros(1)}, "x")
    left = checkpoint.fit(net, {"weight": torch.zeros(3, 2), "bias": torch.zeros(4)}, "x", partial=True)
    assert left == ["bias"] and net.weight.abs().sum() == 0 and torch.equal(net.bias, other.bias)
    with pytest.raises(ValueError, match="none of its weights fits"):
        checkpoint.fit(net, {"a": torch.zeros(1)}, "x", partial=True)


def test_digest_tells_weights_apart():
    one, two = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    assert checkpoint.digest(one) == checkpoint.digest(one) != checkpoint.digest(two)
    two.load_state_dict(one.state_dict())
    assert checkpoint.digest(one) == checkpoint.digest(two)


def raw(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def split(data):
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


RECIPE = {
    "name": "x",
    "task": "super_resolve",
    "networks": {"generator": {"type": "fast", "width": 2, "depth": 1, "scale": 2, "expand": 0, "residual": False}},
    "fidelity": [{"type": "l1"}],
    "data": {"scale": 2},
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    path = tmp_path_factory.mktemp("valid") / "x.safetensors"
    torch.manual_seed(0)
    system = build(Recipe.parse(RECIPE))
    checkpoint.save(path, system.state_dict(), {"recipe": RECIPE, "step": 0, "images": 0, "seed": 0})
    return path.read_bytes()


def loads(path):
    """Whether `load` works; a ValueError that names the file is the only other way out."""
    try:
        pipe = img2img.load(path, device="cpu", precision="fp32")
    except ValueError as error:
        assert path.name in str(error) and len(str(error)) < 5000, error
        return False
    assert pipe.task
    return True


def test_the_valid_file_loads(valid, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(valid)
    assert loads(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        b"\0" * 8,
        raw(b"", length=2**63),
        raw(b"{}", length=2**64 - 1),
        raw(b"{}", length=100_000_000),
        raw(b"{}"),
        raw(b"[]"),
        raw(b"null"),
        raw(b"{" * 50_000),
        raw(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        raw(b"\xff" * 64),
        raw({"__metadata__": 5}),
        raw({"__metadata__": {"img2img": 5}}),
        raw({"__metadata__": {"img2img": "5"}}),
        raw({"__metadata__": {"img2img": "{"}}),
        raw({"__metadata__": {"img2img": "[" * 100_000}}),
        raw({"__metadata__": {"img2img": "9" * 10_000}}),
        raw({"__metadata__": {"img2img": '{"recipe": 5}'}}),
        raw({"__metadata__": {"img2img": '{"recipe": {}}'}}),
        raw({"__metadata__": {"img2img": '{"recipe": {"a": ' + '{"a":' * 500 + "1" + "}" * 502}}),
        raw({"x": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 2**63]}}),
        raw({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
        raw({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"\0" * 4),
        raw({"x": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
    ],
)
def test_hostile_files(data, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert not loads(path)


def test_not_a_file(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        checkpoint.header(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        checkpoint.header(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", 10**14),
        ("width", 2**70),
        ("width", 3),
        ("depth", 10**12),
        ("scale", 10**7),
        ("expand", 10**12),
        ("expand", 1000),
    ],
)
def test_numbers_beyond_the_file_are_refused_before_memory_is_taken(key, value, valid, tmp_path):
    header, body = split(valid)
    meta = json.loads(header["__metadata__"]["img2img"])
    meta["recipe"]["networks"]["generator"][key] = value
    header["__metadata__"]["img2img"] = json.dumps(meta)
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw(header, body))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not loads(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kilobytes"


@pytest.mark.parametrize("classes", [{"a": 0}, 3, "ab", ["a", 1], None])
def test_classes_that_are_no_names_are_refused(classes, valid, tmp_path):
    header, body = split(valid)
    header["__metadata__"]["img2img"] = json.dumps(json.loads(header["__metadata__"]["img2img"]) | {"classes": classes})
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw(header, body))
    with pytest.raises(ValueError, match="x.safetensors: the classes in its header are no list of names"):
        restore(str(path))


JUNK = [None, -1, 0, 1.5, 3, 2**40, 2**70, "", "x", "F16", "F64", "BOOL", "F8_E4M3", "C64", [], {}, [1], [0, 8], True]


def places(value, path=()):
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def mutate(value, chance):
    *path, last = chance.choice(list(places(value)))
    for step in path:
        value = value[step]
    if isinstance(value, dict) and chance.random() < 0.3:
        found = value.pop(last)
        if chance.random() < 0.5:
            value[chance.choice(["generator.x", "ema.generator.x", "optimizer", "task", "recipe"])] = found
    else:
        value[last] = chance.choice(JUNK)


def test_mutated_headers_raise_nothing_but_value_errors(valid, tmp_path):
    chance, path, good = random.Random(0), tmp_path / "x.safetensors", 0
    for number in range(500):
        header, body = split(valid)
        if number % 2:
            meta = json.loads(header["__metadata__"]["img2img"])
            for _ in range(chance.randint(1, 2)):
                mutate(meta, chance)
            header["__metadata__"]["img2img"] = json.dumps(meta)
        else:
            for _ in range(chance.randint(1, 2)):
                mutate(header, chance)
        path.write_bytes(raw(header, body))
        good += loads(path)
    assert 5 < good < 400


def test_mutated_and_shortened_files_raise_nothing_but_value_errors(valid, tmp_path):
    chance, path, good = random.Random(1), tmp_path / "x.safetensors", 0
    for number in range(400):
        data = bytearray(valid)
        if number % 4 == 0:
            del data[chance.randrange(len(data)) :]
        for _ in range(chance.randint(0 if number % 4 == 0 else 1, 3)):
            if data:
                # The header is most of this file; half of the changes go to its first bytes and the numbers there.
                data[chance.randrange(len(data) if chance.random() < 0.5 else min(16, len(data)))] = chance.randrange(
                    256
                )
        path.write_bytes(bytes(data))
        good += loads(path)
    assert good < 300


@pytest.mark.parametrize("generator", ["srgan_discriminator", "mlp", "patchgan", "dcgan_generator"])
def test_a_network_that_cannot_do_the_task(generator, tmp_path):
    spec = {"type": generator, "width": 2} | ({"inputs": 48} if generator == "mlp" else {})
    page = RECIPE | {"networks": {"generator": spec}, "data": {"size": 16, "scale": 2}}
    system = build(Recipe.parse(page))
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, system.state_dict(), {"recipe": page})
    loads(path)


def test_only_what_inference_needs_is_built(pages, tmp_path, monkeypatch):
    """A perceptual term's network is not fetched, and a discriminator's weights are not asked for."""
    page = pages["translator"]
    page["fidelity"].append({"type": "perceptual", "network": "vgg19"})
    torch.manual_seed(0)
    generator = build(Recipe.parse(pages["translator"] | {"fidelity": [{"type": "l1"}]})).generator
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {f"generator.{k}": v for k, v in generator.state_dict().items()}, {"recipe": page})

    def fetched(*names):
        raise AssertionError(f"{names} was fetched")

    monkeypatch.setattr("img2img.fidelity.perceptual.features", fetched)
    system = restore(str(path))
    assert not hasattr(system, "discriminator") and not system.training
    assert system.recipe == Recipe.parse(page)
    assert all(torch.equal(v, generator.state_dict()[k]) for k, v in system.generator.state_dict().items())


def test_the_averaged_weights_are_the_ones_that_are_used(trained):
    for name, run in trained.items():
        tensors, _ = checkpoint.load(run / "last.safetensors")
        mine = restore(str(run / "last.safetensors")).generator.state_dict()
        assert any(not torch.equal(value, tensors[f"generator.{key}"]) for key, value in mine.items())
        for key, value in mine.items():
            assert torch.equal(value, tensors[f"ema.generator.{key}"]), (name, key)


def test_half_precision_weights_are_read_as_fp32(valid, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(valid)
    tensors, header = checkpoint.load(tmp_path / "a.safetensors")
    checkpoint.save(tmp_path / "b.safetensors", {k: v.half() for k, v in tensors.items()}, header)
    for value in restore(str(tmp_path / "b.safetensors")).state_dict().values():
        assert value.dtype == torch.float32


def test_threads_build_networks_at_the_same_time(valid, tmp_path):
    """The bound on a network's size is one thread's; a small file's must not stop another thread's larger one."""
    (tmp_path / "x.safetensors").write_bytes(valid)
    failures = []

    def work(index):
        try:
            for _ in range(10):
                if index:
                    build(Recipe.parse(RECIPE | {"networks": {"generator": {"type": "fast", "width": 64}}}))
                else:
                    restore(str(tmp_path / "x.safetensors"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_no_file_was_left_open(valid, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(valid[: len(valid) // 2])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        assert not loads(path)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
