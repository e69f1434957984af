"""Fetching archives into a cache, verified and resumable, and unpacking them without trusting them.

A source names where an archive comes from, never a host: the ordinary client of each registry decides that.

| source | fetched by | installs or runs anything? |
| --- | --- | --- |
| npm:NAME@VERSION | `npm pack --ignore-scripts` | no |
| pypi:NAME==VERSION | `pip download --no-deps --only-binary` | no |
| debian:NAME or debian:NAME=VERSION | `apt-get download` | no |
| https://... (http:// only with a checksum) | this module, resumed after a cut connection | no |
| file:PATH | nothing: the file is verified where it lies | no |
"""

import bz2
import contextlib
import gzip
import hashlib
import http.client
import importlib.util
import io
import logging
import lzma
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock
from tqdm import tqdm

log = logging.getLogger(__name__)

BLOCK = 1 << 20
SIZE_LIMIT = 16 << 30  # bytes of one download
RATIO, SLACK = 200, 64 << 20  # an archive may unpack to RATIO times its own size plus SLACK bytes
ENTRIES = 1_000_000  # files in one archive
WAITS = (1, 2, 4, 8, 16)  # seconds between attempts that brought nothing new
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError, struct.error)


def cache() -> Path:
    """Return the folder for fetched files: `$IMG2IMG_CACHE`, else `~/.cache/img2img` (not created here)."""
    return Path(os.environ.get("IMG2IMG_CACHE") or Path.home() / ".cache" / "img2img")


def fetch(
    source: str,
    *,
    sha256: str | None = None,
    size: int | None = None,
    folder: str | Path | None = None,
    limit: int = SIZE_LIMIT,
) -> Path:
    """Return the archive that `source` names, fetching it when it is not there yet.

    A file that is already there and right is returned without the network. A new file appears whole or not at all.

    Args:
        source: See the table at the top of this module.
        sha256: Expected checksum in hex; None accepts whatever comes, and whatever lies in the cache. The checksum of
            what came is then told on stderr, to be written down where the source is named.
        size: Expected length in bytes.
        folder: The cache to use; None for `cache()/archives`. Each source has a folder of its own in it.
        limit: Refuse more bytes than this.

    Raises:
        ValueError: Unknown form of source, a client that is missing or fails, a file of the wrong size or checksum
            (it is removed).
    """
    kind, value = _split(source)
    if kind == "file":
        path = Path(value)
        if not path.is_file():
            raise ValueError(f"{source}: no such file")
        _verify(path, source, sha256, size)
        return path
    if kind == "http" and not sha256:
        raise ValueError(f"{source}: plain http needs a sha256, since anyone on the way can change it; use https")
    # The hash keeps sources apart whose names are equal once they are made fit for a file system.
    slug = re.sub(r"[^\w.@+-]+", "_", value)[-80:].strip("._")
    place = Path(folder or cache() / "archives") / f"{kind}-{slug}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / ".lock"):  # the processes of one training run may all ask at once
        for path in sorted(place.iterdir()):
            if not path.name.startswith(".") and path.suffix != ".part" and _present(path, source, sha256, size):
                return path
        get = _download if kind in ("https", "http") else _client
        part = get(kind, value, place, sha256, min(limit, size or limit))
        _verify(part, source, sha256, size)
        if not sha256:
            found = _checksum(part)
            tqdm.write(f'{source}: nobody has vouched for it; to pin what came: sha256 = "{found}"', file=sys.stderr)
        target = place / part.name.removesuffix(".part")
        os.replace(part, target)
    return target


def unpack(archive: str | Path, folder: str | Path, members: Iterable[str] = ("*",)) -> list[Path]:
    """Unpack a zip, wheel, tar (gz, xz, bz2, zst), deb or Qt .rcc archive into a folder; its content tells which it is.

    Only regular files are written, each whole or not at all, with default permissions. Links and devices are left
    out, so no file can land outside the folder.

    Args:
        archive: The file.
        folder: Made when missing; files of the same name in it are replaced.
        members: Globs of the names to unpack; `*` also matches `/`.

    Returns:
        The files written, in the archive's order.

    Raises:
        ValueError: Not such an archive, a damaged one, a name that leaves the folder, or a decompression bomb.
    """
    archive, folder, members = Path(archive), Path(folder), tuple(members)
    folder.mkdir(parents=True, exist_ok=True)
    base = folder.resolve()
    written = []
    try:
        for name, file in _entries(archive):
            if any(fnmatchcase(name, glob) for glob in members):
                _write(file, folder / name, base, archive)
                written.append(folder / name)
    except DAMAGE as error:
        raise _damaged(archive, error) from error
    return written


def rcc(source: str | Path | bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of every file in a Qt binary resource archive (`rcc --binary`, format 1 to 3).

    Args:
        source: A path, or the archive itself.

    Raises:
        ValueError: Not a .rcc file, a damaged one, or one that holds zstd-compressed files.
    """
    where = "rcc archive" if isinstance(source, bytes) else str(source)
    blob = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        yield from _rcc(blob, where)
    except (struct.error, zlib.error, UnicodeDecodeError, IndexError) as error:
        raise ValueError(f"{where}: damaged .rcc archive ({error}); fetch it again") from error


# --- fetching ---------------------------------------------------------------------------------------------------------

FORMS = {
    "npm": (r"(@[a-z0-9~][\w.~-]*/)?[a-z0-9~][\w.~-]*@\d[\w.+-]*", "npm:NAME@VERSION"),
    "pypi": (r"[A-Za-z0-9][\w.-]*==\d[\w.!+-]*", "pypi:NAME==VERSION"),
    "debian": (r"[a-z0-9][a-z0-9.+-]+(=\d[\w.+~:-]*)?", "debian:NAME or debian:NAME=VERSION"),
}


def _split(source: str) -> tuple[str, str]:
    """Return (kind, rest) of a source; the forms are strict so that nothing in it can pass for a client's option."""
    kind, colon, value = source.partition(":")
    if kind in ("https", "http") and value.startswith("//") and len(value) > 2:
        return kind, value
    if kind == "file" and value:
        return kind, value
    if kind in FORMS:
        pattern, form = FORMS[kind]
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{source}: expected the form {form}")
        return kind, value
    known = ", ".join(form for _, form in FORMS.values())
    raise ValueError(f"{source!r} is no source; known forms: {known}, https://..., file:PATH")


def _client(kind: str, value: str, place: Path, sha256: str | None, limit: int) -> Path:
    """Let the registry's own client bring one archive to `place`."""
    scratch = place / ".part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    source = f"{kind}:{value}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    command, mend = {
        "npm": (["npm", "pack", "--ignore-scripts", "--loglevel=error", value], "install npm"),
        "pypi": ([*pip, "download", "--no-deps", "--only-binary=:all:", value], "'python -m ensurepip' installs pip"),
        "debian": (["apt-get", "download", "--quiet", value], "it needs Debian's or Ubuntu's apt-get"),
    }[kind]
    if shutil.which(command[0]) is None or (kind == "pypi" and importlib.util.find_spec("pip") is None):
        raise ValueError(f"{source}: cannot be fetched here; {mend}")
    log.info("fetching %s", source)
    try:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, errors="replace", timeout=3600)
        if done.returncode:
            lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            told = [line for line in lines if re.match(r"ERROR|E:|npm error (?!code)", line)] or lines[-1:]
            mend = "check name, version and connection" + (", and run 'apt-get update'" if kind == "debian" else "")
            raise ValueError(f"{source}: {told[0][:300] if told else 'the client failed'}; {mend}")
        found = [path for path in scratch.iterdir() if path.is_file()]
        if len(found) != 1:
            raise ValueError(f"{source}: the registry gave {len(found)} files where one is expected; check the name")
        if found[0].stat().st_size > limit:
            raise ValueError(f"{source}: {found[0].stat().st_size:,} bytes where at most {limit:,} are allowed")
        return found[0].replace(place / f"{found[0].name}.part")
    except subprocess.TimeoutExpired:
        raise ValueError(f"{source}: gave up after an hour; check the connection and run again") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _present(path: Path, source: str, sha256: str | None, size: int | None) -> bool:
    """Is a right file there? A wrong one is removed, so that it is fetched again."""
    if not path.is_file():
        return False
    try:
        _verify(path, source, sha256, size)
    except ValueError as error:
        log.warning("%s; fetching it again", error)
        return False
    return True


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(path: Path, source: str, sha256: str | None, size: int | None) -> None:
    """Raise ValueError, and remove the file unless it is the user's own, when length or checksum differ."""
    wrong = None
    if size is not None and path.stat().st_size != size:
        wrong = f"{path.stat().st_size:,} bytes where {size:,} are expected"
    elif sha256 is not None:
        found = _checksum(path)
        if found != sha256.lower():
            wrong = f"checksum {found} where {sha256.lower()} is expected"
    if wrong and source.startswith("file:"):
        raise ValueError(f"{source}: {wrong}; it is another file, or a damaged one")
    if wrong:
        path.unlink(missing_ok=True)
        raise ValueError(f"{source}: {wrong}; the file was removed: run again, or correct the source's page")


def _download(kind: str, value: str, place: Path, sha256: str | None, limit: int) -> Path:
    """Bring what an address gives to a `.part` file in `place`, going on from what is there."""
    url = f"{kind}:{value}"
    name = re.sub(r"[^\w.+-]+", "_", urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2]))
    part = place / f"{name.strip('.') or 'download'}.part"
    # What names the version that an earlier run was being sent: with it the server itself tells whether the rest fits.
    note = part.with_name(f".{part.name}.version")
    validator, idle = note.read_text(encoding="utf-8") if note.exists() else None, 0
    if not sha256 and not validator:
        part.unlink(missing_ok=True)  # nobody could tell whether the rest still fits
    with tqdm(unit="B", unit_scale=True, unit_divisor=1024, desc=part.stem[:40], disable=None, leave=False) as bar:
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                _attempt(url, part, before, validator, limit, bar)
                note.unlink(missing_ok=True)
                return part
            except urllib.error.HTTPError as error:
                trouble = f"the server answered {error.code} {error.reason}"
                if error.code == 416 and before:
                    if error.headers.get("Content-Range") == f"bytes */{before}":
                        note.unlink(missing_ok=True)
                        return part  # it was complete already
                    part.unlink()
                elif error.code < 500 and error.code not in (408, 425, 429):
                    raise ValueError(f"{url}: {trouble}; check the address") from None
            except _CutError as error:
                validator, trouble = error.validator, "the connection was cut"
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                trouble = str(getattr(error, "reason", error)) or type(error).__name__
            idle = 0 if part.exists() and part.stat().st_size > before else idle + 1
            if idle > len(WAITS):
                raise ValueError(f"{url}: {trouble}, {idle} times over; run again later, it will go on from there")
            time.sleep(WAITS[max(idle - 1, 0)])


class _CutError(Exception):
    """The connection ended before the file did; `validator` names the version that was being sent."""

    def __init__(self, validator: str | None):
        self.validator = validator


def _attempt(url: str, part: Path, start: int, validator: str | None, limit: int, bar: tqdm) -> None:
    """Ask for the bytes from `start` on and append them to `part`."""
    headers = {"User-Agent": "img2img", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        if url.startswith("https:") and not answer.url.startswith("https:"):
            raise ValueError(f"{url}: the server leads from https to an insecure address; not followed")
        if answer.status != 206 or not (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            if answer.status == 206:
                raise ValueError(f"{url}: the server sent another part than was asked for; remove {part} and run again")
            start = 0
        etag = answer.headers.get("ETag")
        validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        if total is not None and total > limit:
            raise ValueError(f"{url}: {total:,} bytes where at most {limit:,} are allowed")
        if total is not None and total - start > shutil.disk_usage(part.parent).free:
            raise ValueError(f"{url}: {total - start:,} bytes do not fit on the disk of {part.parent}; make room")
        bar.total, bar.n = total, start
        bar.refresh()
        got = start
        note = part.with_name(f".{part.name}.version")
        if validator:
            note.write_text(validator, encoding="utf-8")
        else:
            note.unlink(missing_ok=True)
        with open(part, "ab" if start else "wb") as file:
            while block := _read(answer, validator):
                got += len(block)
                if got > limit:
                    raise ValueError(f"{url}: more than the {limit:,} bytes that are allowed")
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
        if total is not None and got < total:
            raise _CutError(validator)


def _read(answer: http.client.HTTPResponse, validator: str | None) -> bytes:
    try:
        return answer.read(1 << 16)
    except (http.client.HTTPException, TimeoutError, ConnectionError):
        raise _CutError(validator) from None


# --- unpacking --------------------------------------------------------------------------------------------------------


class _Bounded(io.RawIOBase):
    """Passes on what `file` gives until the archive has given more than it may; broken data become a ValueError."""

    def __init__(self, file: BinaryIO, archive: Path, spent: list[int]):
        self.file, self.archive, self.spent = file, archive, spent
        self.limit = RATIO * archive.stat().st_size + SLACK

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        try:
            block = self.file.read(min(len(buffer), BLOCK))
        except Exception as error:  # whatever a decoder makes of hostile bytes
            raise _damaged(self.archive, error) from error
        self.spent[0] += len(block)
        if self.spent[0] > self.limit:
            raise ValueError(f"{self.archive}: unpacks to over {RATIO} times its size; a decompression bomb, refused")
        buffer[: len(block)] = block
        return len(block)


class _Section(io.RawIOBase):
    """The next `left` bytes of a file, as a file."""

    def __init__(self, file: BinaryIO, left: int):
        self.file, self.left = file, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        block = self.file.read(min(len(buffer), self.left))
        self.left -= len(block)
        buffer[: len(block)] = block
        return len(block)


def _damaged(archive: Path, error: Exception) -> ValueError:
    return ValueError(f"{archive}: damaged archive ({error or type(error).__name__}); remove it and fetch it again")


def _entries(archive: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Yield (safe relative name, open file) of an archive's regular files; each is valid until the next is taken."""
    if not archive.is_file():
        raise ValueError(f"{archive}: no such file")
    try:
        with open(archive, "rb") as file, contextlib.ExitStack() as stack:
            head = file.peek(8)[:8]
            if head[:4] in (b"PK\3\4", b"PK\5\6"):
                found = _zip(archive, stack)
            elif head == b"!<arch>\n":
                found = _tar(_deb(file, archive), archive, stack)
            elif head[:4] == b"qres":
                found = ((name, io.BytesIO(content)) for name, content in rcc(archive))
            else:
                found = _tar(file, archive, stack)
            for count, (name, content) in enumerate(found):
                if count >= ENTRIES:
                    raise ValueError(f"{archive}: more than {ENTRIES:,} files; refused")
                yield _safe(name, archive), content
    except Exception as error:  # hostile bytes make the libraries fail with all kinds; ours name the archive
        if isinstance(error, ValueError) and str(error).startswith(f"{archive}:"):
            raise
        raise _damaged(archive, error) from error


def _write(file: BinaryIO, path: Path, base: Path, archive: Path) -> None:
    """Write one member, whole or not at all."""
    if not path.parent.resolve().is_relative_to(base):  # a link that was in the folder before us
        raise ValueError(f"{archive}: {path} would be written outside the folder; unpack into an empty one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{archive}: {path} lies below a file; unpack into an empty folder") from None
    if path.is_dir():
        raise ValueError(f"{archive}: {path} is a file and a folder at once; unpack into an empty folder")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".unpack-")
    try:
        with os.fdopen(handle, "wb") as target:
            shutil.copyfileobj(file, target, BLOCK)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _safe(name: str, archive: Path) -> str:
    """Return a member's name as a relative path with forward slashes, or refuse it."""
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or ".." in parts or "\0" in plain or re.match(r"[A-Za-z]:", plain) or not parts:
        raise ValueError(f"{archive}: member {name!r} would leave the folder; a hostile archive, refused")
    return "/".join(parts)


def _zip(archive: Path, stack: contextlib.ExitStack) -> Iterator[tuple[str, BinaryIO]]:
    spent = [0]
    bundle = stack.enter_context(zipfile.ZipFile(archive))
    for info in bundle.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir() or kind not in (0, stat.S_IFREG):
            continue
        try:
            opened = bundle.open(info)
        except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unknown compression
            raise _damaged(archive, error) from error
        with opened:
            yield info.filename, io.BufferedReader(_Bounded(opened, archive, spent))


def _tar(file: BinaryIO, archive: Path, stack: contextlib.ExitStack) -> Iterator[tuple[str, BinaryIO]]:
    plain = _Bounded(_decompressed(file, archive, stack), archive, [0])
    bundle = stack.enter_context(tarfile.open(fileobj=plain, mode="r|"))  # noqa: SIM115
    for info in bundle:
        if info.isreg() and info.issparse():  # its holes would not be counted
            raise ValueError(f"{archive}: {info.name!r} is a sparse file; pack it as an ordinary one")
        if info.isreg():
            yield info.name, bundle.extractfile(info)


def _decompressed(file: BinaryIO, archive: Path, stack: contextlib.ExitStack) -> BinaryIO:
    """Return a stream of the plain tar in `file`, whatever it is compressed with."""
    head = file.peek(6)[:6]
    if head[:2] == b"\x1f\x8b":
        return stack.enter_context(gzip.GzipFile(fileobj=file))
    if head == b"\xfd7zXZ\0":
        return stack.enter_context(lzma.LZMAFile(file))
    if head[:3] == b"BZh":
        return stack.enter_context(bz2.BZ2File(file))
    if head[:4] != b"\x28\xb5\x2f\xfd":
        return file
    if importlib.util.find_spec("zstandard"):
        import zstandard

        return stack.enter_context(zstandard.ZstdDecompressor().stream_reader(file))
    if archive.suffix == ".deb" and shutil.which("dpkg-deb"):
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        return stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)).stdout
    raise ValueError(f"{archive}: compressed with zstd; 'pip install zstandard' to read it")


def _deb(file: BinaryIO, archive: Path) -> BinaryIO:
    """Return the data.tar of a Debian package: an ar archive of a few members with 60-byte headers."""
    file.read(8)
    while len(header := file.read(60)) == 60:
        name, length = header[:16].decode("latin-1").strip().rstrip("/"), header[48:58].strip()
        if header[58:] != b"`\n" or not length.isdigit():
            break
        if name.startswith("data.tar"):
            return io.BufferedReader(_Section(file, int(length)), BLOCK)
        file.seek(int(length) + int(length) % 2, os.SEEK_CUR)
    raise ValueError(f"{archive}: damaged Debian package (it has no data.tar); remove it and fetch it again")


def _rcc(blob: bytes, where: str) -> Iterator[tuple[str, bytes]]:
    """The tree: fixed-size nodes; a folder names a run of children, a file an offset into the data section."""
    magic, version, tree, data, names = struct.unpack(">4s4I", blob[:20])
    if magic != b"qres" or not 1 <= version <= 3:
        raise ValueError(f"{where}: not a Qt .rcc archive of format 1 to 3")
    node_size, budget = (14 if version == 1 else 22), RATIO * len(blob) + SLACK
    seen: set[int] = set()
    pending = [(0, "")]
    while pending:
        node, folder = pending.pop()
        if node in seen:
            raise ValueError(f"{where}: damaged .rcc archive (a folder holds itself); fetch it again")
        seen.add(node)
        name_at, flags = struct.unpack_from(">IH", blob, tree + node * node_size)
        if node:
            length = struct.unpack_from(">H", blob, names + name_at)[0]
            start = names + name_at + 6
            folder += blob[start : start + 2 * length].decode("utf-16-be") + ("/" if flags & 2 else "")
        if flags & 2:
            count, first = struct.unpack_from(">II", blob, tree + node * node_size + 6)
            if count > len(blob) // node_size:
                raise ValueError(f"{where}: damaged .rcc archive (more entries than it has room for); fetch it again")
            pending += [(child, folder) for child in reversed(range(first, first + count))]
            continue
        start = data + struct.unpack_from(">I", blob, tree + node * node_size + 10)[0]
        length = struct.unpack_from(">I", blob, start)[0]
        content = blob[start + 4 : start + 4 + length]
        if len(content) < length:
            raise ValueError(f"{where}: cut short in {folder!r}; fetch it again")
        if flags & 4:
            raise ValueError(f"{where}: {folder!r} is compressed with zstd; only zlib and plain files are read")
        if flags & 1:
            size = struct.unpack_from(">I", content)[0]
            budget -= size
            if budget < 0:
                raise ValueError(f"{where}: unpacks to more than {RATIO} times its size; a decompression bomb, refused")
            content = zlib.decompressobj().decompress(content[4:], size) if size else b""
            if len(content) != size:
                raise ValueError(f"{where}: cut short in {folder!r}; fetch it again")
        yield folder, content
