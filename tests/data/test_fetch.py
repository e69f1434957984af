import hashlib
import http.server
import io
import os
import random
import struct
import tarfile
import threading
import zipfile
import zlib

import pytest

from img2img.data import fetch as module
from img2img.data.fetch import cache, fetch, rcc, unpack

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; `cut` bytes are sent before the connection breaks, `refuse` answers are an error first."""

    cut = refuse = 0
    code, ranges = 503, True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.versions = [], []
        self.url = f"http://127.0.0.1:{self.server_port}/set/archive.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        server.versions.append(self.headers.get("If-Range"))
        if server.refuse:
            server.refuse -= 1
            return self.send_error(server.code)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        if server.cut:
            self.wfile.write(CONTENT[start : start + server.cut])
            server.cut = 0
            self.wfile.flush()
            self.connection.close()
            return None
        self.wfile.write(CONTENT[start:])
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("IMG2IMG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "WAITS", (0, 0, 0))
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("IMG2IMG_CACHE", str(tmp_path))
    assert cache() == tmp_path
    monkeypatch.delenv("IMG2IMG_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache() == tmp_path / ".cache" / "img2img"


# --- fetching ---


def test_download_and_cache(server):
    path = fetch(server.url, sha256=SHA256, size=len(CONTENT))
    assert path.name == "archive.bin"
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache())
    server.shutdown()  # from here on there is no network
    server.server_close()
    assert fetch(server.url, sha256=SHA256) == path


def test_cut_connection_is_resumed(server):
    server.cut = 100_000
    assert fetch(server.url, sha256=SHA256).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_part_of_an_earlier_run_is_resumed(server):
    server.refuse, server.code = 99, 503
    with pytest.raises(ValueError, match="503"):
        fetch(server.url, sha256=SHA256)
    (place,) = (cache() / "archives").iterdir()
    (place / "archive.bin.part").write_bytes(CONTENT[:50_000])
    server.refuse = 0
    server.asked.clear()
    assert fetch(server.url, sha256=SHA256).read_bytes() == CONTENT
    assert server.asked == ["bytes=50000-"]


def test_complete_part_needs_no_more_bytes(server):
    path = fetch(server.url, sha256=SHA256)
    path.rename(path.with_name("archive.bin.part"))
    assert fetch(server.url, sha256=SHA256).read_bytes() == CONTENT


def test_server_without_ranges_starts_over(server):
    server.cut, server.ranges = 100_000, False
    assert fetch(server.url, sha256=SHA256).read_bytes() == CONTENT


def test_wrong_checksum_removes_the_file(server):
    with pytest.raises(ValueError, match="checksum .* is expected; the file was removed"):
        fetch(server.url, sha256="0" * 64)
    assert [name for name in files(cache()) if not name.endswith(".lock")] == []


def test_stale_part_fails_once_and_then_succeeds(server):
    path = fetch(server.url, sha256=SHA256)
    path.unlink()
    path.with_name("archive.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match="run again"):
        fetch(server.url, sha256=SHA256)
    assert fetch(server.url, sha256=SHA256).read_bytes() == CONTENT


def test_damaged_cached_file_is_fetched_again(server):
    path = fetch(server.url, sha256=SHA256)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch(server.url, sha256=SHA256).read_bytes() == CONTENT


def test_missing_file_fails_at_once(server):
    server.refuse, server.code = 99, 404
    with pytest.raises(ValueError, match="404"):
        fetch(server.url, sha256=SHA256)
    assert len(server.asked) == 1


def test_busy_server_is_asked_again(server):
    server.refuse = 2
    assert fetch(server.url, sha256=SHA256).read_bytes() == CONTENT
    assert len(server.asked) == 3


@pytest.mark.parametrize("limits", [{"limit": 1000}, {"size": 1000}])
def test_more_bytes_than_allowed(server, limits):
    with pytest.raises(ValueError, match="1,000"):
        fetch(server.url, sha256=SHA256, **limits)


def test_plain_http_needs_a_checksum(server):
    with pytest.raises(ValueError, match="plain http needs a sha256"):
        fetch(server.url)
    assert not server.asked


@pytest.fixture
def trusted(server, monkeypatch):
    """The local server at an https address, which needs no checksum."""
    real = module._attempt
    monkeypatch.setattr(module, "_attempt", lambda url, *rest: real(url.replace("https:", "http:"), *rest))
    return server.url.replace("http:", "https:")


def test_unknown_checksum_is_told(trusted, capsys):
    path = fetch(trusted)
    assert path.read_bytes() == CONTENT
    assert f'sha256 = "{SHA256}"' in capsys.readouterr().err
    assert fetch(trusted) == path and "sha256" not in capsys.readouterr().err


def test_without_checksum_a_part_is_resumed_only_if_its_version_is_known(server, trusted, monkeypatch):
    server.cut = 100_000
    with monkeypatch.context() as patch:
        patch.setattr(module.time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch(trusted)
    (part,) = (cache() / "archives").rglob("*.part")
    assert part.stat().st_size == 100_000
    server.asked.clear()
    path = fetch(trusted)
    assert path.read_bytes() == CONTENT and server.asked == ["bytes=100000-"] and server.versions[-1] == '"one"'
    assert files(path.parent) == [".lock", "archive.bin"]
    path.rename(part)  # of a run that did not write down what it was being sent
    part.write_bytes(b"x" * 1000)
    server.asked.clear()
    assert fetch(trusted).read_bytes() == CONTENT and server.asked == [None]


def test_file_source_is_verified_and_never_removed(tmp_path):
    path = tmp_path / "mine.bin"
    path.write_bytes(CONTENT)
    assert fetch(f"file:{path}", sha256=SHA256) == path
    with pytest.raises(ValueError, match="checksum"):
        fetch(f"file:{path}", sha256="1" * 64)
    assert path.exists()
    with pytest.raises(ValueError, match="no such file"):
        fetch(f"file:{path}.not")


@pytest.mark.parametrize(
    "source",
    ["npm:--help@1", "npm:name", "npm:../x@1.0", "npm:a@1.0\n--x", "pypi:x", "pypi:-e==1", "pypi:a==1 b", "debian:-o"]
    + ["debian:", "debian:a=1;b", "ftp://x", "x", "file:"],
)
def test_malformed_sources_never_reach_a_client(monkeypatch, source):
    monkeypatch.setattr(module.subprocess, "run", lambda *args, **kwargs: pytest.fail("a client was started"))
    with pytest.raises(ValueError, match="form"):
        fetch(source)


def client(tmp_path, monkeypatch, name, script):
    """Put a stand-in for a registry's client first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("npm:@scope/thing@1.2.3", "npm", "pack --ignore-scripts --loglevel=error @scope/thing@1.2.3"),
        ("debian:thing=4:1.0-2", "apt-get", "download --quiet thing=4:1.0-2"),
    ],
)
def test_registry_clients(tmp_path, monkeypatch, source, name, words):
    script = f'echo "$@" > {tmp_path}/words; echo x >> {tmp_path}/runs; printf 12345 > package.x'
    client(tmp_path, monkeypatch, name, script)
    first = fetch(source, folder=tmp_path / "cache")
    assert first.name == "package.x"
    assert first.read_bytes() == b"12345"
    assert (tmp_path / "words").read_text().strip() == words
    assert fetch(source, folder=tmp_path / "cache", sha256=hashlib.sha256(b"12345").hexdigest()) == first
    assert (tmp_path / "runs").read_text() == "x\n"  # the second came from the cache
    with pytest.raises(ValueError, match="checksum"):
        fetch(source, folder=tmp_path / "other", sha256="0" * 64)
    assert not list((tmp_path / "other").rglob("*.x*"))


def test_failing_client_gives_one_line(tmp_path, monkeypatch):
    client(tmp_path, monkeypatch, "apt-get", "echo noise >&2; echo 'E: Unable to locate package thing' >&2; exit 100")
    with pytest.raises(ValueError, match="^debian:thing: E: Unable to locate package thing; .*update") as caught:
        fetch("debian:thing", folder=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="install npm"):
        fetch("npm:thing@1.0.0", folder=tmp_path / "cache")


def test_pip_fetches_a_wheel_without_its_dependencies(tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing/data.txt", "hello")
        meta = "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\nRequires-Dist: nothing-of-this-name\n"
        wheel.writestr("thing-1.0.dist-info/METADATA", meta)
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    for key, value in {"NO_INDEX": "1", "FIND_LINKS": str(wheels), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    path = fetch("pypi:thing==1.0", folder=tmp_path / "cache")
    assert (unpack(path, tmp_path / "out", ["thing/*"])[0]).read_text() == "hello"
    with pytest.raises(ValueError, match=r"pypi:thing==2\.0: ERROR"):
        fetch("pypi:thing==2.0", folder=tmp_path / "cache")


# --- unpacking ---


def make_zip(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in members.items():
            bundle.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def make_tar(members, mode="w:gz", extra=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as bundle:
        for info in extra:
            bundle.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def make_deb(members, mode="w:xz", suffix="xz", compress=lambda data: data):
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": make_tar({"control": b"Package: x"}) + b"",
        f"data.tar.{suffix}": compress(make_tar(members, mode)),
    }
    blob = b"!<arch>\n"
    for name, content in parts.items():
        blob += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}".encode() + b"`\n" + content
        blob += b"\n" * (len(content) % 2)
    return blob


def make_rcc(members, version=2, packed=True):
    """Folders of one level only: name or folder/name."""
    root = {}
    for name, content in members.items():
        *folder, leaf = name.split("/")
        root.setdefault(folder[0], {})[leaf] = content if folder else root.setdefault(leaf, content)
    nodes, names, data = [], b"", b""

    def name_at(text):
        nonlocal names
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
        return len(names) - 6 - 2 * len(text)

    def data_at(content):
        nonlocal data
        content = struct.pack(">I", len(content)) + zlib.compress(content) if packed else content
        data += struct.pack(">I", len(content)) + content
        return len(data) - 4 - len(content)

    tail = b"\0" * 8 if version >= 2 else b""
    nodes.append(struct.pack(">IHII", 0, 2, len(root), 1) + tail)
    first = 1 + len(root)
    for name, content in root.items():
        assert isinstance(content, dict)
        nodes.append(struct.pack(">IHII", name_at(name), 2, len(content), first) + tail)
        first += len(content)
    for content in root.values():
        for leaf, blob in content.items():
            nodes.append(struct.pack(">IHHHI", name_at(leaf), int(packed), 0, 0, data_at(blob)) + tail)
    head = 24 if version >= 3 else 20
    tree = b"".join(nodes)
    blob = struct.pack(">4s4I", b"qres", version, head, head + len(tree), head + len(tree) + len(data))
    return blob + b"\0" * (head - 20) + tree + data + names


GOOD = {"a/one.txt": b"one" * 1000, "a/two.bin": bytes(range(256)), "b/empty": b""}


def zstd(data):
    return pytest.importorskip("zstandard").ZstdCompressor().compress(data)


MAKERS = {
    "zip": make_zip,
    "tar": lambda members: make_tar(members, "w"),
    "tgz": make_tar,
    "txz": lambda members: make_tar(members, "w:xz"),
    "tbz": lambda members: make_tar(members, "w:bz2"),
    "tzst": lambda members: zstd(make_tar(members, "w")),
    "deb.xz": make_deb,
    "deb.gz": lambda members: make_deb(members, "w:gz", "gz"),
    "deb": lambda members: make_deb(members, "w", "zst", zstd),
    "rcc1": lambda members: make_rcc(members, 1),
    "rcc2": make_rcc,
    "rcc3": lambda members: make_rcc(members, 3, packed=False),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_unpack_every_kind(tmp_path, kind):
    archive = tmp_path / "archive"  # the name says nothing
    archive.write_bytes(MAKERS[kind](GOOD))
    written = unpack(archive, tmp_path / "out")
    assert {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in written} == GOOD
    assert unpack(archive, tmp_path / "some", ["*.txt"]) == [tmp_path / "some" / "a" / "one.txt"]
    assert files(tmp_path / "some") == ["a/one.txt"]
    unpack(archive, tmp_path / "out")  # once more over what is there
    assert files(tmp_path / "out") == sorted(GOOD)


def test_rcc_from_bytes_and_path(tmp_path):
    blob = make_rcc(GOOD)
    (tmp_path / "x.rcc").write_bytes(blob)
    assert dict(rcc(blob)) == dict(rcc(tmp_path / "x.rcc")) == GOOD


@pytest.mark.parametrize(
    "name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt", "c:/out.txt"]
)
@pytest.mark.parametrize("make", [make_zip, make_tar, make_deb], ids=["zip", "tar", "deb"])
def test_names_that_leave_the_folder(tmp_path, make, name):
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in" / "archive"
    archive.write_bytes(make({"fine": b"x", name: b"evil"}))
    with pytest.raises(ValueError, match="hostile archive"):
        unpack(archive, tmp_path / "in" / "out")
    assert "out.txt" not in " ".join(files(tmp_path))


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_links_and_devices_are_left_out(tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    extra = [link("there", str(away)), link("hard", "/etc/passwd", tarfile.LNKTYPE)]
    extra += [link("pipe", "", tarfile.FIFOTYPE), link("device", "", tarfile.CHRTYPE)]
    (tmp_path / "archive").write_bytes(make_tar({"there/evil.txt": b"evil", "fine": b"x"}, extra=extra))
    unpack(tmp_path / "archive", tmp_path / "out")
    assert files(tmp_path / "out") == ["fine", "there/evil.txt"]
    assert not list(away.iterdir())
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_link_in_a_zip_is_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive", "w") as bundle:
        info = zipfile.ZipInfo("there")
        info.external_attr = 0o120777 << 16
        bundle.writestr(info, "/etc")
        bundle.writestr("fine", "x")
    unpack(tmp_path / "archive", tmp_path / "out")
    assert files(tmp_path / "out") == ["fine"]


def test_link_that_lay_in_the_folder_is_not_followed(tmp_path):
    (tmp_path / "away").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "away")
    (tmp_path / "archive").write_bytes(make_tar({"a/b/evil.txt": b"evil"}))
    with pytest.raises(ValueError, match="outside"):
        unpack(tmp_path / "archive", tmp_path / "out")
    assert not list((tmp_path / "away").iterdir())


def test_file_and_folder_at_once(tmp_path):
    (tmp_path / "archive").write_bytes(make_zip({"a": b"x", "a/b": b"y"}))
    with pytest.raises(ValueError, match="below a file"):
        unpack(tmp_path / "archive", tmp_path / "out")
    (tmp_path / "archive").write_bytes(make_zip({"a/b": b"y", "a": b"x"}))
    with pytest.raises(ValueError, match="at once"):
        unpack(tmp_path / "archive", tmp_path / "other")


@pytest.mark.parametrize("kind", ["zip", "tgz", "txz", "deb.xz", "rcc2"])
def test_bombs(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(module, "SLACK", 1 << 16)
    (tmp_path / "archive").write_bytes(MAKERS[kind]({"a/zeros": bytes(20_000_000)}))
    with pytest.raises(ValueError, match="bomb"):
        unpack(tmp_path / "archive", tmp_path / "out")
    assert files(tmp_path / "out") == []


def test_too_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ENTRIES", 2)
    (tmp_path / "archive").write_bytes(make_zip(GOOD))
    with pytest.raises(ValueError, match="more than 2 files"):
        unpack(tmp_path / "archive", tmp_path / "out")


def test_encrypted_zip_and_no_archive(tmp_path):
    blob = bytearray(make_zip({"a": b"x"}))
    blob[6] |= 1  # the flag in the local header, and that in the directory
    blob[blob.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "archive").write_bytes(blob)
    with pytest.raises(ValueError, match="encrypted"):
        unpack(tmp_path / "archive", tmp_path / "out")
    for content in (b"", b"hello", b"!<arch>\nnonsense"):
        (tmp_path / "archive").write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged|cut short"):
            unpack(tmp_path / "archive", tmp_path / "out")
    with pytest.raises(ValueError, match="no such file"):
        unpack(tmp_path / "nothing", tmp_path / "out")


def test_rcc_that_holds_itself():
    blob = bytearray(make_rcc({"a/b": b"x"}))
    struct.pack_into(">I", blob, 20 + 22 + 10, 0)  # the folder's first child becomes the root
    with pytest.raises(ValueError, match="holds itself"):
        list(rcc(bytes(blob)))


@pytest.mark.parametrize("kind", MAKERS)
def test_damaged_archives_are_one_clear_error(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(module, "SLACK", 1 << 20)
    blob, dice = MAKERS[kind](GOOD), random.Random(kind)
    refused = 0
    for turn in range(60):
        bad = bytearray(blob)
        if turn % 2:
            del bad[dice.randrange(len(bad)) :]
        else:
            for _ in range(dice.randint(1, 8)):
                bad[dice.randrange(len(bad))] = dice.randrange(256)
        archive = tmp_path / f"{turn}"
        archive.write_bytes(bad)
        try:
            unpack(archive, tmp_path / "out" / f"{turn}")
        except ValueError as error:
            refused += 1
            assert str(error).startswith(str(tmp_path))
            assert "\n" not in str(error)
    assert refused >= 20
    assert not [name for name in files(tmp_path / "out") if ".unpack-" in name]
