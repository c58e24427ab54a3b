"""Getting files from a mirror: a folder, and a real HTTP server that can break off, lie and change its mind."""

import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from orca_sweep.data import File
from orca_sweep.data.fetching import fetch_files, find_missing_members, recorded_hashes, unpack_archive
from orca_sweep.errors import DataError
from orca_sweep.tasks import TASKS, load_task_data
from orca_sweep.tasks.recipes import describe_npy_file
from tests.builders.in_process import command

CONTENT = bytes(range(256)) * 5000


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, with ranges; breaks off, answers with pages or fails as the server is told."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        if self.path in server.pages:
            body, kind = server.pages[self.path]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            if body.startswith(b"\x1f\x8b"):
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        try:
            data = (server.folder / self.path.lstrip("/")).read_bytes()
        except OSError:
            self.send_error(404)
            return
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        start = 0
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        sent = data[start:]
        self.wfile.write(sent[: server.breaks_after] if server.breaks_after else sent)


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "mirror"
    folder.mkdir()
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.folder, made.asked, made.pages, made.breaks_after = folder, [], {}, None
    made.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def left(root):
    """What lies in the data root, but for locks."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_mirror_that_is_a_folder(tmp_path, root):
    (tmp_path / "m/sub").mkdir(parents=True)
    (tmp_path / "m/sub/a.bin").write_bytes(CONTENT)
    seen = []
    outcome = fetch_files([File(path="sub/a.bin")], root, str(tmp_path / "m"), lambda *progress: seen.append(progress))
    assert (root / "sub/a.bin").read_bytes() == CONTENT
    assert outcome[0].how.startswith("fetched from file://")
    assert seen[-1] == ("sub/a.bin", len(CONTENT), len(CONTENT))
    assert fetch_files([File(path="sub/a.bin")], root, str(tmp_path / "nowhere"))[0].how == "is there"
    with pytest.raises(DataError, match=r"b.bin: is not in this mirror"):
        fetch_files([File(path="b.bin")], root, str(tmp_path / "m"))
    assert left(root) == ["hashes.json", "sub/a.bin"]


def test_a_server_and_a_published_hash(server, root):
    (server.folder / "a.bin").write_bytes(CONTENT)
    good = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    fetch_files([File(path="a.bin", url=f"{server.url}/a.bin", hash=good)], root)
    assert (root / "a.bin").read_bytes() == CONTENT
    assert left(root) == ["a.bin"]  # a published hash is not recorded again
    (root / "a.bin").unlink()
    with pytest.raises(DataError, match=r"its hash is not the published one \(md5:000"):
        fetch_files([File(path="a.bin", url=f"{server.url}/a.bin", hash="md5:000")], root)
    assert left(root) == []


def test_an_unknown_hash_is_recorded_and_a_change_is_an_error(server, root):
    file = File(path="a.bin", url=f"{server.url}/a.bin")
    (server.folder / "a.bin").write_bytes(CONTENT)
    fetch_files([file], root)
    assert recorded_hashes(root) == {"a.bin": f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"}
    (root / "a.bin").unlink()
    (server.folder / "a.bin").write_bytes(CONTENT[::-1])
    with pytest.raises(DataError, match=r"not the recorded at the first download one .* remove its line from .*hashes"):
        fetch_files([file], root)
    assert left(root) == ["hashes.json"]
    (server.folder / "a.bin").write_bytes(CONTENT)
    fetch_files([file], root)
    assert (root / "a.bin").read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_was(server, root):
    file = File(path="a.bin", url=f"{server.url}/a.bin")
    (server.folder / "a.bin").write_bytes(CONTENT)
    server.breaks_after = 300_000
    with pytest.raises(DataError, match=r"run it again: the download resumes|of 1280000 bytes came"):
        fetch_files([file], root)
    assert not (root / "a.bin").exists()
    part = (root / ".a.bin.orca-sweep-part").stat().st_size
    assert 0 < part <= 300_000
    server.breaks_after = None
    fetch_files([file], root)
    assert server.asked[-1] == ("/a.bin", f"bytes={part}-")
    assert (root / "a.bin").read_bytes() == CONTENT
    assert left(root) == ["a.bin", "hashes.json"]


def test_a_part_of_a_file_that_has_changed_since_is_not_gone_on_with(server, root):
    file = File(path="a.bin", url=f"{server.url}/a.bin")
    (server.folder / "a.bin").write_bytes(CONTENT)
    server.breaks_after = 300_000
    with pytest.raises(DataError):
        fetch_files([file], root)
    server.breaks_after = None
    (server.folder / "a.bin").write_bytes(CONTENT[::-1])
    fetch_files([file], root)
    assert (root / "a.bin").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ((b"<html>gone</html>", "text/html; charset=utf-8"), "sends a web page"),
        ((b"\n<!DOCTYPE html><p>sign in", "application/octet-stream"), "a web page came"),
        ((b'<?xml version="1.0"?><Error>AccessDenied', "application/xml"), "a web page came"),
        ((b"", "application/octet-stream"), "nothing came"),
    ],
)
def test_a_page_is_never_kept_as_data(server, root, page, words):
    server.pages["/a.npy"] = page
    with pytest.raises(DataError, match=words):
        fetch_files([File(path="a.npy", url=f"{server.url}/a.npy")], root)
    assert left(root) == []


def test_a_status_that_is_no_success_and_no_server_at_all(server, root):
    with pytest.raises(DataError, match="the server answers 404"):
        fetch_files([File(path="a.bin", url=f"{server.url}/a.bin")], root)
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"Check the address and the network and run it again"):
        fetch_files([File(path="a.bin", url=f"{server.url}/a.bin")], root)
    assert left(root) == []


def test_a_file_of_another_shape_is_not_kept(server, root):
    np.save(server.folder / "x.npy", np.zeros((3, 7)))
    with pytest.raises(DataError, match=r"shape \(3, 7\). \(N, 8\) was expected.* not kept"):
        fetch_files([describe_npy_file("x.npy", (None, 8), url=f"{server.url}/x.npy")], root)
    assert left(root) == []


def test_all_that_cannot_be_had_is_said_at_once_and_the_rest_is_fetched(server, root):
    (server.folder / "b.bin").write_bytes(CONTENT)
    files = [
        File(path="a.bin"),
        File(path="b.bin", url=f"{server.url}/b.bin"),
        File(path="c.bin", url=f"{server.url}/c.bin"),
    ]
    with pytest.raises(DataError) as caught:
        fetch_files(files, root)
    assert len(str(caught.value).splitlines()) == 2
    assert "no address to fetch it from" in str(caught.value)
    assert left(root) == ["b.bin", "hashes.json"]


def tar_of(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_archives_are_fetched_once_and_unpacked(server, root):
    tar_of(server.folder / "both.tar.gz", {"in/a": b"1", "in/b": b"2"})
    files = [File(path=f"in/{name}", url=f"{server.url}/both.tar.gz", archive="both.tar.gz") for name in "ab"]
    fetch_files(files, root)
    assert left(root) == ["both.tar.gz", "hashes.json", "in/a", "in/b"]
    assert len(server.asked) == 1
    (root / "in/a").unlink()
    fetch_files(files, root)
    assert (root / "in/a").read_bytes() == b"1"
    assert len(server.asked) == 1
    with pytest.raises(DataError, match=r"there is no in/c in it"):
        fetch_files([File(path="in/c", url=f"{server.url}/both.tar.gz", archive="both.tar.gz")], root)


def test_a_mirror_may_have_unpacked_what_the_publisher_packs(tmp_path, root):
    (tmp_path / "m/in").mkdir(parents=True)
    for name in "ab":
        (tmp_path / f"m/in/{name}").write_bytes(name.encode())
    files = [
        File(path=f"in/{name}", url="https://nowhere.invalid/x.tar.gz", hash="md5:0", archive="x.tar.gz")
        for name in "ab"
    ]
    (root / "in").mkdir()
    (root / "in/a").write_bytes(b"a")
    fetch_files(files, root, str(tmp_path / "m"))  # the second of an archive is not forgotten
    assert (root / "in/b").read_bytes() == b"b"


def test_a_list_is_fetched_with_the_files_it_names(tmp_path, root):
    from tests.originals import ORIGINALS

    (tmp_path / "m").mkdir()
    for name in ("psicov", "cosmic"):
        ORIGINALS[name](tmp_path / "m")
        fetch_files(TASKS.get(name).files, root, str(tmp_path / "m"))
        assert all(not find_missing_members(file, root) for file in TASKS.get(name).files)
        load_task_data(TASKS.get(name), root, 0, None)
    victim = next((root / "protein").rglob("*.pkl"))
    victim.unlink()
    assert sum(len(find_missing_members(file, root)) for file in TASKS.get("psicov").files) == 1
    with pytest.raises(DataError, match="no address to fetch it from"):
        fetch_files(TASKS.get("psicov").files, root)


def test_two_that_fetch_at_once_fetch_once(server, root):
    (server.folder / "a.bin").write_bytes(CONTENT)
    file = File(path="a.bin", url=f"{server.url}/a.bin")
    threads = [threading.Thread(target=fetch_files, args=([file], root)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (root / "a.bin").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_part_that_is_whole_already_is_begun_anew(server, root):
    (server.folder / "a.bin").write_bytes(CONTENT)
    (root / ".a.bin.orca-sweep-part").write_bytes(CONTENT)
    tag = f'"{hashlib.md5(CONTENT).hexdigest()}"'
    (root / ".a.bin.orca-sweep-part.json").write_text(json.dumps({"url": f"{server.url}/a.bin", "tag": tag}))
    fetch_files([File(path="a.bin", url=f"{server.url}/a.bin")], root)
    assert (root / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [f"bytes={len(CONTENT)}-", None]


def test_an_address_that_is_none_is_said_so(root):
    with pytest.raises(DataError, match=r"InvalidSchema.* Check the address"):
        fetch_files([File(path="a.bin")], root, "ftp://host/place")


def test_archives_that_lead_out_or_are_bombs_or_damaged(root):
    tar_of(root / "out.tar.gz", {"../evil": b"1"})
    with pytest.raises(DataError, match=r"out.tar.gz: cannot be unpacked"):
        unpack_archive(root / "out.tar.gz", root)
    assert not (root.parent / "evil").exists()
    with zipfile.ZipFile(root / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**7))
    with pytest.raises(DataError, match="bomb.zip: it unpacks to"):
        unpack_archive(root / "bomb.zip", root, most=10**6)
    (root / "cut.zip").write_bytes((root / "bomb.zip").read_bytes()[:-30])
    with pytest.raises(DataError, match="cut.zip: cannot be unpacked"):
        unpack_archive(root / "cut.zip", root)
    assert left(root) == ["bomb.zip", "cut.zip", "out.tar.gz"]
    unpack_archive(root / "bomb.zip", root)
    assert (root / "zeros").stat().st_size == 10**7


def test_the_commands_fetch_check_and_convert_from_a_server(server, root, capsys, monkeypatch):
    from tests.builders.tasks import ninapro_files

    ninapro_files(server.folder)
    assert command(monkeypatch, "data", "check", "ninapro", "--data", root) == 2
    shown = capsys.readouterr().out
    assert shown.count("missing") == 6
    assert "not converted yet" in shown
    assert command(monkeypatch, "data", "convert", "ninapro", "--data", root) == 2
    assert "orca-sweep data fetch ninapro" in capsys.readouterr().err
    assert command(monkeypatch, "data", "fetch", "ninapro", "--data", root, "--base-url", server.url) == 0
    assert command(monkeypatch, "data", "check", "ninapro", "--data", root) == 0
    assert "(40, 52, 16) float64" in capsys.readouterr().out
    assert command(monkeypatch, "data", "convert", "ninapro", "--data", root) == 0
    assert "x_train.npy: (40, 1, 16, 52) float32" in capsys.readouterr().out
    np.save(root / "ninaPro/ninapro_val.npy", np.zeros((5, 52, 17)))
    assert command(monkeypatch, "data", "check", "ninapro", "--data", root) == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert "wrong" in shown
    assert "(N, 52, 16) was expected" in shown
    assert command(monkeypatch, "data", "list", "--data", root) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert "6 of 6 files here" in listed["ninapro"]
    assert "0 of 1 files here" in listed["advection"]
    assert command(monkeypatch, "data", "fetch", "ecg", "--data", root) == 2
    assert "no address to fetch it from" in capsys.readouterr().err
    assert command(monkeypatch, "data", "check", "ninapr", "--data", root) == 2
    assert "Did you mean 'ninapro'?" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": 1}', '{"a": "sha256:no hex"}'])
def test_recorded_hashes_that_are_damaged_are_told_and_kept(server, root, damage):
    (root / "hashes.json").write_text(damage)
    (server.folder / "a.bin").write_bytes(CONTENT)
    with pytest.raises(DataError, match=r"hashes.json: damaged \(.*Correct it, or move it away"):
        fetch_files([File(path="a.bin", url=f"{server.url}/a.bin")], root)
    assert (root / "hashes.json").read_text() == damage
    assert left(root) == ["hashes.json"]


def test_a_compressed_answer_is_unpacked_up_to_a_limit(server, root, monkeypatch):
    monkeypatch.setattr("orca_sweep.data.fetching.UNPACKED_BYTES", 2**21)
    server.pages["/a.bin"] = gzip.compress(CONTENT), "application/octet-stream"
    server.pages["/b.bin"] = gzip.compress(bytes(2**25)), "application/octet-stream"
    assert fetch_files([File(path="a.bin", url=f"{server.url}/a.bin")], root)[0].how.startswith("fetched")
    assert (root / "a.bin").read_bytes() == CONTENT
    with pytest.raises(
        DataError, match=r"b.bin: the server sends it compressed, and it unpacks to more than [\d,]+ bytes"
    ):
        fetch_files([File(path="b.bin", url=f"{server.url}/b.bin")], root)
    assert left(root) == ["a.bin", "hashes.json"]


@pytest.mark.network
def test_a_published_file_really_comes(root):
    fetch_files(TASKS.get("cifar10").files, root)
    assert all("pickled dict" in file.check(root) for file in TASKS.get("cifar10").files)
