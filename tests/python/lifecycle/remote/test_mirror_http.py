"""Mirror against a web server: what is downloaded, and what every fault leaves behind."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.file_server import FileServer

from fastserve import errors
from fastserve.lifecycle.remote import Mirror
from fastserve.lifecycle.remote.store import Patience
from fastserve.lifecycle.repository import scan_repositories

IDENTITY = b'backend: "identity"\n'
Make = Callable[..., Mirror]


def tree(folder: Path) -> dict[str, bytes]:
    """What a scan would see."""
    return {
        os.path.relpath(os.path.join(at, name), folder): Path(at, name).read_bytes()
        for at, _, names in os.walk(folder, followlinks=True)
        for name in names
        if "/." not in at[len(str(folder)) :] and not name.startswith(".")
    }


def index(web: FileServer, top: str = "/models/") -> None:
    """Writes fastserve-manifest.json for everything below `top`."""
    files = {
        path[len(top) :]: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in web.files.items()
        if path.startswith(top) and path != top + "fastserve-manifest.json"
    }
    web.files[top + "fastserve-manifest.json"] = json.dumps({"files": files}).encode()


@pytest.fixture
def digits(web: FileServer) -> FileServer:
    web.files["/models/digits/config.pbtxt"] = IDENTITY
    web.files["/models/digits/1/weights.bin"] = os.urandom(10_000)
    web.files["/models/digits/2/weights.bin"] = os.urandom(10_000)
    return web


@pytest.mark.parametrize("indexed", [True, False])
def test_the_versions_that_are_served_lie_in_a_folder_of_tritons_layout(
    digits: FileServer, make_mirror: Make, indexed: bool
) -> None:
    if indexed:
        index(digits)
    mirror = make_mirror()
    url = f"{digits.url}/models"
    mirror.update(url)
    assert tree(mirror.local(url)) == {
        "digits/config.pbtxt": IDENTITY,
        "digits/2/weights.bin": digits.files["/models/digits/2/weights.bin"],
    }
    assert digits.gets("/models/digits/1/weights.bin") == []  # the policy serves the latest alone
    scan = scan_repositories([mirror.local(url)])
    assert [*scan.wanted["digits"]] == [2]
    assert scan.problems == []
    assert mirror.names(url) == ["digits"]


def test_what_has_not_changed_is_not_downloaded_again(digits: FileServer, make_mirror: Make) -> None:
    index(digits)
    url = f"{digits.url}/models"
    make_mirror().update(url)
    before = len(digits.requests)
    mirror = make_mirror()  # as after a restart
    mirror.update(url)
    assert [path for _, path, _ in digits.requests[before:]] == ["/models/fastserve-manifest.json"]
    digits.files["/models/digits/3/weights.bin"] = b"three"
    index(digits)
    mirror.update(url)
    assert tree(mirror.local(url))["digits/3/weights.bin"] == b"three"
    assert len(digits.gets("/models/digits/2/weights.bin")) == 1


def test_changed_content_of_a_version_gets_a_folder_of_its_own(digits: FileServer, make_mirror: Make) -> None:
    url = f"{digits.url}/models"
    mirror = make_mirror()
    mirror.update(url)
    old = (mirror.local(url) / "digits" / "2").resolve()
    before = (old / "weights.bin").read_bytes()
    digits.files["/models/digits/2/weights.bin"] = b"other"
    mirror.update(url)
    assert tree(mirror.local(url))["digits/2/weights.bin"] == b"other"
    assert (old / "weights.bin").read_bytes() == before  # whoever reads it goes on
    assert (mirror.local(url) / "digits" / "2").resolve() != old


def test_only_what_is_asked_for(digits: FileServer, make_mirror: Make) -> None:
    digits.files["/models/other/1/x.bin"] = b"x"
    url = f"{digits.url}/models"
    mirror = make_mirror()
    mirror.update(url, ["other"])
    assert [*tree(mirror.local(url))] == ["other/1/x.bin"]
    mirror.update(url, ["nowhere"])  # whoever scans says that there is none
    mirror.update(url, [])
    assert [*tree(mirror.local(url))] == ["other/1/x.bin"]
    del digits.files["/models/other/1/x.bin"]
    mirror.update(url, ["other"])
    assert tree(mirror.local(url)) == {}


def test_a_download_goes_on_where_it_stopped(digits: FileServer, make_mirror: Make) -> None:
    path = "/models/digits/2/weights.bin"
    digits.files[path] = os.urandom(100_000)
    index(digits)
    url = f"{digits.url}/models"
    mirror = make_mirror(range_bytes=1000, parallel=2)
    digits.cut_after[path] = 60_500
    with pytest.raises(errors.Unavailable):
        mirror.update(url)
    digits.cut_after.clear()
    again = make_mirror(range_bytes=1000, parallel=2)  # another process
    again.update(url)
    assert tree(again.local(url))["digits/2/weights.bin"] == digits.files[path]
    assert again.figures.downloaded_bytes <= 41_000
    assert digits.sent(path) <= 104_000


def test_a_server_without_ranges_sends_whole_files(digits: FileServer, make_mirror: Make) -> None:
    digits.ranges = False
    path = "/models/digits/2/weights.bin"
    url = f"{digits.url}/models"
    mirror = make_mirror(range_bytes=1000)
    mirror.update(url)
    assert tree(mirror.local(url))["digits/2/weights.bin"] == digits.files[path]


def test_corrupt_content_is_not_installed_and_the_old_version_stays(
    digits: FileServer, make_mirror: Make, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{digits.url}/models"
    moment = [1e9]
    mirror = make_mirror(now=lambda: moment[0])
    index(digits)
    mirror.update(url)
    digits.files["/models/digits/3/weights.bin"] = b"three"
    index(digits)
    digits.spoiled.add("/models/digits/3/weights.bin")
    mirror.update(url)
    assert "digits/3/weights.bin" not in tree(mirror.local(url))
    assert "digits/2/weights.bin" in tree(mirror.local(url))
    (problem,) = mirror.problems(url)
    assert (problem.model, problem.version) == ("digits", 3)
    assert "'digits/3/weights.bin' is corrupt: sha256 is" in problem.message
    asked = len(digits.gets("/models/digits/3/weights.bin"))
    assert asked == 2  # a second try at once, in case it was the line
    moment[0] += 30
    mirror.update(url)
    assert len(digits.gets("/models/digits/3/weights.bin")) == asked  # no storm
    assert len(mirror.problems(url)) == 1
    digits.spoiled.clear()
    moment[0] += 31
    mirror.update(url)
    assert "digits/3/weights.bin" in tree(mirror.local(url))
    assert mirror.problems(url) == []


def test_a_version_that_changes_while_it_is_downloaded_is_no_mixture(
    digits: FileServer, make_mirror: Make
) -> None:
    path = "/models/digits/2/weights.bin"
    new = os.urandom(10_000)
    url = f"{digits.url}/models"

    def change(asked: str, start: int) -> None:
        if asked == path and start == 5000:
            digits.files[path] = new

    digits.before_read = change
    mirror = make_mirror(range_bytes=1000, parallel=1)
    mirror.update(url)
    assert tree(mirror.local(url))["digits/2/weights.bin"] == new


def test_a_version_that_never_rests_is_left_for_later(digits: FileServer, make_mirror: Make) -> None:
    path = "/models/digits/2/weights.bin"
    url = f"{digits.url}/models"

    def change(asked: str, start: int) -> None:
        if asked == path:
            digits.files[path] = os.urandom(10_000)

    digits.before_read = change
    mirror = make_mirror()
    with pytest.raises(errors.InvalidArgument, match="changed 3 times while it was downloaded"):
        mirror.update(url, ["digits"])
    mirror.update(url)
    assert "changed 3 times" in mirror.problems(url)[0].message


def test_a_half_uploaded_version_is_skipped(digits: FileServer, make_mirror: Make) -> None:
    url = f"{digits.url}/models"
    mirror = make_mirror()
    mirror.update(url)
    manifest = {"files": {"model.xml": {"size": 3}, "model.bin": {"size": 4}}}
    digits.files["/models/digits/3/fastserve-manifest.json"] = json.dumps(manifest).encode()
    digits.files["/models/digits/3/model.xml"] = b"xml"
    mirror.update(url)
    assert "incomplete: fastserve-manifest.json names 'model.bin'" in mirror.problems(url)[0].message
    digits.files["/models/digits/3/model.bin"] = b"bi"
    mirror.update(url)
    assert "'model.bin' has 2 bytes, fastserve-manifest.json says 4" in mirror.problems(url)[0].message
    assert "digits/2/weights.bin" in tree(mirror.local(url))
    digits.files["/models/digits/3/model.bin"] = b"bin!"
    digits.files["/models/digits/3/stray.txt"] = b"not in the manifest"
    mirror.update(url)
    assert {"digits/3/model.xml", "digits/3/model.bin"} < set(tree(mirror.local(url)))
    assert "digits/3/stray.txt" not in tree(mirror.local(url))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (503, errors.Unavailable),
        (403, errors.PermissionDenied),
        (401, errors.PermissionDenied),
        (404, errors.NotFound),
    ],
)
def test_a_store_that_refuses_leaves_the_cache_serving(
    digits: FileServer,
    make_mirror: Make,
    caplog: pytest.LogCaptureFixture,
    fault: int,
    error: type[Exception],
) -> None:
    url = f"{digits.url.replace('://', '://me:hunter2@')}/models?sig=topsecret"
    with caplog.at_level(logging.DEBUG, "fastserve"):
        mirror = make_mirror()
        digits.status = fault
        with pytest.raises(error) as raised:
            mirror.update(url)
        digits.status = 0
        mirror.update(url)
        before = tree(mirror.local(url))
        digits.status = fault
        caplog.clear()
        for _ in range(3):
            mirror.update(url)
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1  # said once, not at every poll
        assert tree(mirror.local(url)) == before
        make_mirror().update(url)  # a start: the complete copy serves
        with pytest.raises(error):
            make_mirror(offline_start=False).update(url)
        assert mirror.unreachable(url)
        digits.status = 0
        mirror.update(url)
        assert not mirror.unreachable(url)
    said = caplog.text + str(raised.value) + str(mirror.local(url))
    assert "hunter2" not in said
    assert "topsecret" not in said
    assert "127.0.0.1" in str(raised.value)


def test_a_passing_fault_is_tried_again(digits: FileServer, make_mirror: Make) -> None:
    digits.refusals = [500, 503, 500]
    url = f"{digits.url}/models"
    mirror = make_mirror(patience=Patience(5.0, 4, 0.001))
    mirror.update(url)
    assert "digits/2/weights.bin" in tree(mirror.local(url))


def test_a_repository_that_is_suddenly_empty_is_not_believed(digits: FileServer, make_mirror: Make) -> None:
    index(digits)
    url = f"{digits.url}/models"
    mirror = make_mirror()
    mirror.update(url)
    before = tree(mirror.local(url))
    digits.files["/models/fastserve-manifest.json"] = b'{"files": {}}'
    mirror.update(url)
    assert tree(mirror.local(url)) == before
    assert "is empty, and was not before" in mirror.unreachable(url)


@pytest.mark.parametrize(("files", "fits"), [(3, True), (4, True), (5, False)])
def test_limit_of_files(digits: FileServer, make_mirror: Make, files: int, fits: bool) -> None:
    for number in range(files):
        digits.files[f"/models/many/1/{number}.bin"] = b"x"
    url = f"{digits.url}/models"
    mirror = make_mirror(max_version_files=4)
    mirror.update(url)
    assert any(name.startswith("many/") for name in tree(mirror.local(url))) == fits
    problems = [] if fits else ["many/1/ has 5 files, at most 4 are taken (max_version_files)"]
    assert [problem.message for problem in mirror.problems(url)] == problems
    assert mirror.figures.failures.get("RESOURCE_EXHAUSTED", 0) == (not fits)


@pytest.mark.parametrize(("size", "fits"), [(999, True), (1000, True), (1001, False)])
def test_limit_of_bytes(web: FileServer, make_mirror: Make, size: int, fits: bool) -> None:
    web.files["/models/large/1/a.bin"] = bytes(size)
    url = f"{web.url}/models"
    mirror = make_mirror(max_version_bytes=1000)
    mirror.update(url)
    assert ("large/1/a.bin" in tree(mirror.local(url))) == fits
    assert len(mirror.problems(url)) == (not fits)


def test_two_mirrors_of_one_cache_download_once(digits: FileServer, make_mirror: Make) -> None:
    index(digits)
    url = f"{digits.url}/models"
    mirrors = [make_mirror(), make_mirror()]
    threads = [threading.Thread(target=mirror.update, args=(url,)) for mirror in mirrors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digits.gets("/models/digits/2/weights.bin")) == 1
    assert len(tree(mirrors[1].local(url))) == 2


def test_versions_that_nobody_uses_leave_after_a_while(digits: FileServer, make_mirror: Make) -> None:
    url = f"{digits.url}/models"
    moment = [2e9]  # of the mirror; files have the machine's time, which is long ago
    loaded: list[str] = []
    mirror = make_mirror(now=lambda: moment[0], in_use=lambda: loaded)
    mirror.update(url)
    old = (mirror.local(url) / "digits" / "2").resolve()
    loaded.append(str(old / "weights.bin"))
    digits.files["/models/digits/3/weights.bin"] = b"three"
    mirror.update(url)
    assert old.is_dir()  # loaded still
    loaded.clear()
    mirror.update(url)
    assert not old.exists()
    assert "digits/3/weights.bin" in tree(mirror.local(url))


def test_another_process_keeps_what_it_uses(digits: FileServer, make_mirror: Make) -> None:
    url = f"{digits.url}/models"
    other = make_mirror()
    other.update(url)
    old = (other.local(url) / "digits" / "2").resolve()
    mirror = make_mirror(now=lambda: 2e9, in_use=list)
    digits.files["/models/digits/3/weights.bin"] = b"three"
    mirror.update(url)
    assert old.is_dir()
    other.close()
    mirror.update(url)
    assert not old.exists()


def test_a_model_with_a_configuration_that_cannot_be_read_keeps_its_versions(
    digits: FileServer, make_mirror: Make
) -> None:
    url = f"{digits.url}/models"
    mirror = make_mirror()
    mirror.update(url)
    digits.files["/models/digits/config.pbtxt"] = b"nonsense: 1"
    mirror.update(url)
    assert "digits/2/weights.bin" in tree(mirror.local(url))
    assert scan_repositories([mirror.local(url)]).problems
    digits.files["/models/digits/config.pbtxt"] = IDENTITY + b"version_policy {all {}}"
    mirror.update(url)
    assert {"digits/1/weights.bin", "digits/2/weights.bin"} < set(tree(mirror.local(url)))


def test_unsafe_names_stay_outside(web: FileServer, make_mirror: Make, tmp_path: Path) -> None:
    names = [
        "../../evil",
        "digits/1/../../../evil",
        "digits/1/a b",
        "digits/1/-rf",
        "/etc/x",
        "digits/1/a\nb",
    ]
    files = {name: {"size": 1} for name in names}
    web.files["/models/fastserve-manifest.json"] = json.dumps({"files": files}).encode()
    mirror = make_mirror()
    with pytest.raises(errors.InvalidArgument, match="files"):
        mirror.update(f"{web.url}/models")
    assert not (tmp_path / "evil").exists()


def test_a_cache_that_others_may_write_to_is_refused(
    web: FileServer, make_mirror: Make, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(errors.FailedPrecondition, match="--repository-cache-dir"):
        make_mirror().update(f"{web.url}/models")


def test_the_cache_is_the_users_alone(digits: FileServer, make_mirror: Make) -> None:
    mirror = make_mirror()
    mirror.update(f"{digits.url}/models")
    root = mirror.local(f"{digits.url}/models")
    for folder in (root.parent, root, root / ".data"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_stop_ends_a_download(digits: FileServer, make_mirror: Make) -> None:
    """The request would take as long as its limit: the test would too."""
    index(digits)
    url = f"{digits.url}/models"
    mirror = make_mirror(patience=Patience(request_timeout_s=600.0, attempts=5, backoff_s=600.0))
    go_on = threading.Event()

    def stop(path: str, start: int) -> None:
        if path.endswith("/weights.bin"):
            mirror.stop()
            go_on.wait(30)

    digits.before_read = stop
    with pytest.raises(errors.Unavailable, match="the server stops"):
        mirror.update(url)
    with pytest.raises(errors.Unavailable, match="the server stops"):
        mirror.update(url)
    go_on.set()
