"""Run a function of pictures over files and folder trees: resumable, overlapped, and never half done."""

import contextlib
import errno
import glob
import hashlib
import itertools
import json
import logging
import os
import sys
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from typing import Any

from tqdm import tqdm

from img2img.checkpoint import leftovers
from img2img.imaging import picture as files
from img2img.imaging.picture import LIMIT, READABLE, UNREAD, WRITABLE, Picture, UnreadableImage

RECORD = ".img2img.jsonl"
"""Name of the file in the output folder that remembers what was made from what."""
QUEUED_BYTES = 256 * 2**20
"""Pixels read ahead, and as many waiting to be written; a larger image waits alone."""
_QUEUED = 8  # pictures
_HOPELESS = (errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))
_log = logging.getLogger(__name__)


@dataclass
class Report:
    """What a run did.

    Attributes:
        written: files written.
        skipped: files that were there already, made from the same input with the same settings.
        failed: inputs without a result; each got its line on stderr.
        pixels: output pixels written.
        seconds: wall time.
        outputs: the files written, in order.
    """

    written: int = 0
    skipped: int = 0
    failed: int = 0
    pixels: int = 0
    seconds: float = 0.0
    outputs: list[Path] = field(default_factory=list)


@dataclass
class _Job:
    source: Path
    relative: Path
    size: int = 0
    mtime: int = 0
    target: Path = Path()
    expected: int = 0  # output pixels, from the header
    named: bool = False  # by the user, not found in a folder

    @property
    def identity(self) -> str:
        """What the record calls it, whichever way leads to its folder; two links to one file are two."""
        return os.path.join(os.path.realpath(self.source.parent), self.source.name)

    @property
    def real(self) -> str:
        """The file that it is."""
        return os.path.realpath(self.source)


def process(
    inputs: str | Path | Iterable[str | Path],
    output: str | Path,
    transform: Callable[..., Picture],
    *,
    settings: str,
    suffix: str = "",
    format: str | None = None,
    quality: int = 95,
    overwrite: bool = False,
    scale: float = 1.0,
    limit: int = LIMIT,
    advance: bool = False,
    progress: bool = True,
) -> Report:
    """Run ``transform`` over images and write the results; reading, computing and writing overlap.

    One thread reads ahead, the calling thread computes, one thread writes; the queues between them are bounded in
    pictures and bytes. An input that cannot be read, transformed or written costs one line ``path: reason`` on stderr
    and counts as failed; a full or read-only disk ends the run. Ctrl-C ends it at once, with whole files only.

    Names. One folder gives the same tree below ``output``, several folders each a tree of its own name; a file, or a
    glob's matches, keep their path below the last folder without a wildcard. Links to folders are followed where they
    lead out of the tree, once; linked files are files.
    Hidden files and files that are not images are left out; one line on stderr counts the images of formats that are
    not read, and one a file says where only the first of its frames is used. The extension stays where we write that
    format, else it is ``.png``. Where two inputs would take one name, the one that had it in an earlier run, else the
    first in order, keeps it, and the other has its own extension in its name: ``a.png``, ``a.jpg.png``.

    Resume. `RECORD` in the output folder remembers each input's size and time, the settings and the output's size:
    what is unchanged is skipped, what changed is made again. A file that is in the way and is not in the record, or
    was changed since, is replaced only with ``overwrite``; an input is never replaced. An output folder inside the
    input is not read, nor is what earlier runs made in folders below the input; if both are the same folder, earlier
    outputs and names that end with ``suffix`` are not. A file that is named is read, also if an earlier run made it,
    unless of another input of this run.

    Args:
        inputs: files, folders (recursive) and glob patterns.
        output: a file, for a single input file, where it ends with an image's extension; else a folder.
        transform: `Picture` to `Picture`; called with a second argument ``tick(output_pixels)`` if ``advance``.
        settings: everything that makes results differ (model, weights' checksum, scale, ...); ours are added.
        suffix: added to each name before its extension.
        format: extension of all outputs ("png"); None: as the input's.
        quality: see `picture.write`.
        overwrite: replace files that are not ours.
        scale: output side / input side, for the progress bar only.
        limit: see `picture.read`.
        advance: whether ``transform`` takes ``tick``.
        progress: show the bar.

    Raises:
        ValueError: nothing to do, an output that cannot be written, or an unknown format.
        KeyboardInterrupt: after the threads have ended.
    """
    start, report = time.perf_counter(), Report()
    inputs = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # what matters of a damaged file is in its one line
        plan = _Plan([Path(each) for each in inputs], Path(output), suffix, format, report)
        record = _Record(plan.folder, hashlib.sha256(json.dumps([settings, quality]).encode()).hexdigest()[:16])
        jobs = plan.jobs(record, overwrite)
        if jobs:
            with record.opened():
                _run(jobs, record, transform, report, quality, scale, limit, advance, progress)
    report.seconds = time.perf_counter() - start
    return report


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def fail(report: Report, path: Path, error: BaseException | str) -> None:
    """Count a failure and say it in one line."""
    if isinstance(error, UnreadableImage):
        line = str(error)
    else:
        reason = error if isinstance(error, str) else getattr(error, "strerror", None) or str(error)
        if isinstance(error, BaseException) and not isinstance(error, OSError | ValueError):
            reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        line = reason if reason.startswith(f"{path}: ") else f"{path}: {reason}"
    report.failed += 1
    _say(" ".join(line.split()))
    if isinstance(error, BaseException):
        _log.debug("%s", path, exc_info=error)


# What is to be done


def walk(
    top: Path, failed: Callable[[OSError], None], leave: tuple[int, int] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder from ``top`` down and the names of its files, sorted; each folder once, whatever links say.

    Hidden folders are left out. Links are followed where they lead out of the tree: what they lead to within it has a
    place of its own.

    Args:
        top: where to begin.
        failed: told of each folder that cannot be read.
        leave: device and inode of a folder below ``top`` that is not entered.
    """
    entered: set[tuple[int, int] | None] = set()
    root = os.path.realpath(top)

    def leads_on(path: str) -> bool:
        if not os.path.islink(path):
            return True
        real = os.path.realpath(path)
        with contextlib.suppress(ValueError):  # on different drives
            return os.path.commonpath([root, real]) not in (root, real)
        return True

    for folder, names, plain in os.walk(top, followlinks=True, onerror=failed):
        key = _key(Path(folder))
        if key in entered or (key == leave and Path(folder) != top):
            names.clear()
            continue
        entered.add(key)
        names[:] = sorted(name for name in names if not name.startswith(".") and leads_on(os.path.join(folder, name)))
        yield folder, sorted(plain)


def _key(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file or folder; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Plan:
    """Finds the inputs and gives each its output."""

    def __init__(self, inputs: list[Path], output: Path, suffix: str, format: str | None, report: Report) -> None:
        self.suffix, self.report, self.output = suffix, report, output
        self.extension = None if format is None else "." + format.lower().lstrip(".")
        if self.extension is not None and self.extension not in WRITABLE:
            known = ", ".join(each[1:] for each in WRITABLE)
            raise ValueError(f"unknown format '{format}'; use one of {known}")
        if any(mark in suffix for mark in "/\\\0"):
            raise ValueError(f"the suffix '{suffix}' must not contain a folder")
        self.single = output.suffix.lower() in READABLE and not output.is_dir()
        if not self.single and output.suffix and not output.is_dir() and len(inputs) == 1 and inputs[0].is_file():
            raise ValueError(
                f"{output}: is no folder that is there, and ends like no image; use one of {' '.join(WRITABLE)}"
            )
        if self.single:
            if output.suffix.lower() not in WRITABLE:
                raise ValueError(f"{output}: cannot write '{output.suffix}'; use one of {' '.join(WRITABLE)}")
            if self.extension not in (None, output.suffix.lower()):
                raise ValueError(f"{output}: its extension is not the format '{format}'")
            if len(inputs) != 1 or inputs[0].is_dir() or not inputs[0].exists() and glob.has_magic(str(inputs[0])):
                raise ValueError(f"{output}: several inputs need a folder as output, not a file")
        self.folder = output.parent if self.single else output
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: exists and is not a folder")
        self.unread: dict[str, str] = {}  # file to extension
        self.found = list(self._search(inputs))
        counts = Counter(self.unread.values()).most_common()
        left = ", ".join(f"{count} {extension}" for extension, count in counts)
        left = left and f"left out, in formats that are not read (save them as .png first): {left}"
        if not self.found and not report.failed:
            where = ", ".join(map(str, inputs)) or "no input"
            raise ValueError(f"no images in {where}" + (left and f"; {left}"))
        if left:
            _say(left)

    def _search(self, inputs: list[Path]) -> Iterator[_Job]:
        several = sum(path.is_dir() for path in inputs) > 1
        seen: set[str] = set()
        for given in inputs:
            named = False
            if given.is_dir():
                name = Path(given.resolve().name) if several else Path()
                matches = [(given, given, name)]
            elif not given.exists() and glob.has_magic(str(given)):
                base = given
                while glob.has_magic(str(base)):
                    base = base.parent
                paths = map(Path, sorted(glob.glob(str(given), recursive=True)))
                matches = [(path, base, Path()) for path in paths if path.is_dir() or self._readable(path)]
                if not matches:
                    fail(self.report, given, "matches no image")
            else:
                matches, named = [(given, given.parent, Path())], True
            for path, base, prefix in matches:
                for file in self._walk(path) if path.is_dir() else [path]:
                    job = _Job(file, prefix / file.relative_to(base), named=named)
                    if job.identity not in seen:
                        seen.add(job.identity)
                        yield job

    def _readable(self, path: Path) -> bool:
        """Whether a file has an image's extension; one that we cannot read is noted."""
        extension = path.suffix.lower()
        if extension in UNREAD:
            self.unread[os.path.realpath(path)] = extension
        return extension in READABLE

    def _walk(self, top: Path) -> Iterator[Path]:
        """Yield the images below a folder in order; each folder once, whatever links say."""
        made: set[str] = set()  # by earlier runs, in folders below this one
        own = _key(self.output)
        for folder, plain in walk(top, lambda error: fail(self.report, Path(error.filename), error), leave=own):
            if RECORD in plain and Path(folder) != top:
                with contextlib.suppress(ValueError):  # a record that cannot be read says nothing
                    made |= {os.path.realpath(Path(folder, name)) for name in _Record(Path(folder), "").entries}
            marked = self.suffix and _key(Path(folder)) == own  # files by our own ending are results
            for name in plain:
                path = Path(folder, name)
                if name.startswith(".") or not self._readable(path) or os.path.realpath(path) in made:
                    continue
                if marked and path.stem.endswith(self.suffix):
                    continue
                yield path

    def jobs(self, record: "_Record", overwrite: bool) -> list[_Job]:
        """Return what is missing or changed; say what cannot be done."""
        made = {os.path.realpath(self.folder / name): entry["source"] for name, entry in record.entries.items()}
        given = {job.identity for job in self.found}

        def ours(job: _Job) -> bool:
            return job.real in made and not (job.named and made[job.real] not in given)

        found = [job for job in self.found if not ours(job)]
        if not found and self.found:
            raise ValueError(f"{self.folder}: no images but what earlier runs made; name one to use it")
        sources = {job.real for job in found}
        taken: set[str] = set()
        pending = []
        # Those that have a name from an earlier run first, so that a new input does not take it.
        for job in sorted(found, key=lambda job: record.names.get(job.identity) not in self._usual(job)):
            try:
                state = job.source.stat()
                job.size, job.mtime = state.st_size, state.st_mtime_ns
            except OSError as error:
                fail(self.report, job.source, error)
                continue
            name = self._name(job, record, taken)
            failed = self.report.failed
            job.target = self.folder / name
            if record.done(name, job):
                self.report.skipped += 1
            elif os.path.realpath(job.target) in sources:
                fail(self.report, job.source, f"its output {job.target} is an input; use a suffix or another folder")
            elif job.target.is_dir():
                fail(self.report, job.source, f"its output {job.target} is a folder")
            elif os.path.lexists(job.target) and not overwrite and not record.free(name, job):
                fail(self.report, job.source, f"{job.target} was made from another input; use overwrite")
            elif os.path.lexists(job.target) and not overwrite and not record.ours(name):
                fail(self.report, job.source, f"{job.target} exists and is not ours; use overwrite or a suffix")
            else:
                if not self.single and name != next(self._names(job)):
                    _say(f"{job.source}: another input has the name {next(self._names(job))}; written as {name}")
                pending.append(job)
            if self.report.failed == failed:  # else the next of that name would get another, beside the inputs
                taken.add(os.path.normcase(name))
        order = {id(job): place for place, job in enumerate(found)}
        return sorted(pending, key=lambda job: order[id(job)])

    def _name(self, job: _Job, record: "_Record", taken: set[str]) -> str:
        """Return the name of an earlier run, else the first that no other input has."""
        if self.single:
            return self.output.name
        had, usual = record.names.get(job.identity), self._usual(job)
        names = itertools.chain([had] if had in usual else [], self._names(job))
        return next(name for name in names if os.path.normcase(name) not in taken and record.free(name, job))

    def _usual(self, job: _Job) -> list[str]:
        return list(itertools.islice(self._names(job), 4))

    def _names(self, job: _Job) -> Iterator[str]:
        """Yield the names an output may take, best first."""
        extension = job.relative.suffix
        target = self.extension or (extension if extension.lower() in WRITABLE else ".png")
        parent, stem = job.relative.parent, job.relative.stem
        yield (parent / f"{stem}{self.suffix}{target}").as_posix()
        yield (parent / f"{stem}{extension}{self.suffix}{target}").as_posix()
        number = 2
        while True:
            yield (parent / f"{stem}.{number}{self.suffix}{target}").as_posix()
            number += 1


class _Record:
    """The JSON-lines file of what was made from what; the last line of a name counts.

    A line without ``bytes`` is written before an output and one with it afterwards, so that an output whose run was
    killed between the two is still known as ours, and made again.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder, self.settings = folder, settings
        self.entries: dict[str, dict[str, Any]] = {}
        self.names: dict[str, str] = {}
        self.file: RawIOBase | None = None
        try:
            record = folder / RECORD
            lines = record.read_text(encoding="utf-8", errors="replace").splitlines() if record.is_file() else []
        except OSError as error:
            raise ValueError(f"{folder / RECORD}: {error.strerror}") from error
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # half a line, of a run that was killed
                entry = json.loads(line)
                if isinstance(entry["source"], str):
                    self.entries[entry["output"]] = entry
        self.names = {entry["source"]: name for name, entry in self.entries.items()}

    def free(self, name: str, job: _Job) -> bool:
        """Whether a name is no other living input's."""
        entry = self.entries.get(name)
        return entry is None or entry["source"] == job.identity or not os.path.exists(entry["source"])

    def ours(self, name: str) -> bool:
        """Whether the file of that name is as we left it."""
        entry = self.entries.get(name)
        if entry is None:
            return False
        return "bytes" not in entry or self._size(name) == entry["bytes"]

    def done(self, name: str, job: _Job) -> bool:
        """Whether the output is there, from the same input and settings."""
        entry = self.entries.get(name, {})
        made = (entry.get("size"), entry.get("mtime_ns"), entry.get("settings"))
        return made == (job.size, job.mtime, self.settings) and self._size(name) == entry.get("bytes", -1)

    def _size(self, name: str) -> int | None:
        try:
            return (self.folder / name).stat().st_size
        except OSError:
            return None

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the file open for appending."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = open(self.folder / RECORD, "ab+", buffering=0)  # noqa: SIM115 (closed below)
        except OSError as error:
            raise ValueError(f"{self.folder}: cannot write there ({error.strerror or error})") from error
        with self.file:
            if self.file.tell():
                self.file.seek(-1, os.SEEK_END)
                if self.file.read(1) != b"\n":  # of a run that was killed
                    self.file.write(b"\n")
            yield

    def begin(self, job: _Job) -> None:
        """Note that an output is about to be written; clear away what a killed run left of it."""
        name = self._name(job)
        if "bytes" not in self.entries.get(name, {"bytes": 0}):
            for left in leftovers(job.target):
                left.unlink(missing_ok=True)
        self._add(name, job)

    def finish(self, job: _Job) -> None:
        """Note that an output is there, whole."""
        self._add(self._name(job), job, bytes=job.target.stat().st_size)

    def _name(self, job: _Job) -> str:
        return job.target.relative_to(self.folder).as_posix()

    def _add(self, name: str, job: _Job, **more: int) -> None:
        entry = {"output": name, "source": job.identity, "size": job.size, "mtime_ns": job.mtime}
        entry |= {"settings": self.settings, **more}
        self.file.write(json.dumps(entry).encode() + b"\n")
        self.entries[name] = entry


# Doing it


class _Channel:
    """A queue between two threads, bounded in items and in bytes; an item counts until it is `done`."""

    def __init__(self, most_bytes: int, most: int = _QUEUED) -> None:
        self.most_bytes, self.most = most_bytes, most
        self.items: deque[tuple[Any, int]] = deque()
        self.bytes = self.count = 0
        self.ended = self.aborted = False
        self.changed = threading.Condition()

    def put(self, item: Any, size: int) -> bool:
        """Add an item when there is room; False after an abort."""
        with self.changed:
            while not self.aborted and self.count and (self.count >= self.most or self.bytes + size > self.most_bytes):
                self.changed.wait(0.5)  # a limit, since Windows does not interrupt a wait without one
            if not self.aborted:
                self.items.append((item, size))
                self.bytes += size
                self.count += 1
                self.changed.notify_all()
            return not self.aborted

    def __iter__(self) -> Iterator[Any]:
        """Yield items until the end or an abort; one counts until the next is asked for."""
        held = None
        while True:
            with self.changed:
                if held is not None:
                    self.bytes -= held
                    self.count -= 1
                    self.changed.notify_all()
                while not self.items and not self.ended and not self.aborted:
                    self.changed.wait(0.5)
                if self.aborted or not self.items:
                    return
                item, held = self.items.popleft()
            yield item
            del item

    def end(self) -> None:
        """Say that no item follows."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def abort(self) -> None:
        """Drop everything and wake everybody."""
        with self.changed:
            self.aborted = True
            self.items.clear()
            self.changed.notify_all()


def _run(
    jobs: list[_Job],
    record: _Record,
    transform: Callable[..., Picture],
    report: Report,
    quality: int,
    scale: float,
    limit: int,
    advance: bool,
    progress: bool,
) -> None:
    for job in jobs:
        width, height = files.size(job.source) or (0, 0)
        job.expected = round(width * scale) * round(height * scale)
    loaded, finished = _Channel(QUEUED_BYTES), _Channel(QUEUED_BYTES)
    counting = threading.Lock()

    def failed(job: _Job, error: BaseException | str) -> None:
        with counting:
            fail(report, job.source, error)

    def reading() -> None:
        for job in jobs:
            try:
                item = files.read(job.source, limit=limit)
                size = item.pixels.nbytes
                if (count := files.frames(job.source)) > 1:
                    whole = "; tools/upscale_video.py takes a GIF whole" * (job.source.suffix.lower() == ".gif")
                    _say(f"{job.source}: only the first of its {count} frames is used{whole}")
            except Exception as error:
                item, size = error, 0
            if not loaded.put((job, item), size):
                return
            del item
        loaded.end()

    def writing() -> None:
        for job, made in finished:
            try:
                record.begin(job)
                files.write(job.target, made, quality=quality)
                record.finish(job)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in _HOPELESS:
                    left = len(jobs) - report.written - report.failed - 1
                    failed(job, f"{error.strerror}; stopped with {left} more to do, the same command goes on")
                    report.failed += left
                    finished.abort()
                    loaded.abort()
                    return
                failed(job, error)
                continue
            with counting:
                report.written += 1
                report.pixels += made.width * made.height
                report.outputs.append(job.target)
            del made

    form = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} MP [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
    total = max(sum(job.expected for job in jobs), 1)  # pixels, exactly: sums of floats would run past the end
    threads = [threading.Thread(target=each, daemon=True) for each in (reading, writing)]
    with tqdm(total=total, unit="MP", unit_scale=1e-6, bar_format=form, disable=not progress, file=sys.stderr) as bar:
        try:
            for thread in threads:
                thread.start()
            for place, (job, item) in enumerate(loaded, 1):
                ticked = 0

                def tick(pixels: int) -> None:
                    nonlocal ticked
                    ticked += pixels
                    bar.update(pixels)

                if isinstance(item, Exception):
                    failed(job, item)
                else:
                    try:
                        made = transform(item, tick) if advance else transform(item)
                        expected, job.expected = job.expected, made.width * made.height
                        bar.total += job.expected - expected
                        if not finished.put((job, made), made.pixels.nbytes):
                            break
                        del made
                    except Exception as error:
                        failed(job, error)
                del item
                bar.update(job.expected - ticked)
                bar.set_postfix_str(f"{place}/{len(jobs)}", refresh=False)
            finished.end()
        except BaseException:
            finished.abort()
            raise
        finally:
            loaded.abort()
            for thread in threads:
                thread.join()
