"""Checkpoints: safetensors with the recipe in the header, written whole or not at all."""

import contextlib
import glob
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it takes ``path``'s place, on failure it is removed.

    The file is flushed to the disk before the rename, so that after a crash ``path`` is the old file or the new one.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: encoders choose their format by it.
    temporary = path.with_name(f"{_start(path)}{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a matplotlib figure as a PNG, atomically."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def leftovers(path: str | Path) -> Iterator[Path]:
    """Yield the temporary files of ``path`` that a killed `atomic` left."""
    path = Path(path)
    yield from path.parent.glob(f"{glob.escape(_start(path))}????????.partial{glob.escape(path.suffix)}")


def _start(path: Path) -> str:
    return f".{path.stem.encode()[:100].decode(errors='ignore')}."  # a name may have 255 bytes, not letters


def save(path: str | Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write named tensors and a JSON header as one safetensors file, atomically.

    Raises:
        OSError: the file cannot be written; what was there before stays.
    """
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask allows; safetensors lets only the owner read
        try:
            save_file(tensors, temporary, metadata={"img2img": json.dumps(header)})
            temporary.chmod(mode)
        except SafetensorError as error:
            raise OSError(f"{path}: cannot be written ({error})") from error


def header(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint's header without reading its tensors.

    Raises:
        ValueError: the file is missing, damaged, or was not written by img2img.
    """
    with _opened(path) as file:
        return _header(path, file)


def load(path: str | Path, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors whose names start with ``prefix`` (it is cut off), and the header.

    Raises:
        ValueError: the file is missing, damaged, or was not written by img2img.
    """
    with _opened(path) as file:
        meta = _header(path, file)
        return {name[len(prefix) :]: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}, meta  # noqa: SIM118


def ours(path: str | Path) -> bool:
    """Return whether a safetensors file holds an img2img recipe (a community upscaler's does not).

    Raises:
        ValueError: the file is damaged.
    """
    with _opened(path) as file:
        return "img2img" in (file.metadata() or {})


def digest(module: torch.nn.Module) -> str:
    """Return a short fingerprint of a module's weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def fit(module: torch.nn.Module, tensors: dict[str, Tensor], where: str, partial: bool = False) -> list[str]:
    """Load tensors into a module, with one clear error where they do not fit.

    Args:
        module: the module to fill.
        tensors: its state by name.
        where: the file's name, for the message.
        partial: keep the module's own values where a name or shape differs, instead of failing.

    Returns:
        The names that were left as they were (always empty unless ``partial``).

    Raises:
        ValueError: names or shapes differ.
    """
    own = module.state_dict()
    bad = [name for name in own if name not in tensors or tensors[name].shape != own[name].shape]
    extra = [name for name in tensors if name not in own]
    if partial and len(bad) == len(own):
        raise ValueError(f"{where}: none of its weights fits; choose a checkpoint of the same network")
    if not partial and (bad or extra):
        name = (bad or extra)[0]
        have, want = tensors.get(name), own.get(name)
        shapes = (
            f"file {None if have is None else tuple(have.shape)}, network {None if want is None else tuple(want.shape)}"
        )
        raise ValueError(
            f"{where}: weight {name!r} does not fit the recipe ({shapes}); use the recipe that wrote the file"
        )
    module.load_state_dict({name: own[name] if name in bad else tensors[name] for name in own})
    return bad


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a readable safetensors file ({error}); it may be cut short: fetch it again"
        ) from error


def _header(path: str | Path, file: Any) -> dict[str, Any]:
    text = (file.metadata() or {}).get("img2img")
    if text is None:
        raise ValueError(
            f"{path}: its header holds no img2img recipe; a community upscaler needs 'pip install spandrel'"
        )
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the recipe in its header is damaged ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("recipe"), dict):
        raise ValueError(f"{path}: its header holds no recipe; it was not written by img2img train")
    classes = found.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{path}: the classes in its header are no list of names; use the file as img2img wrote it")
    return found
