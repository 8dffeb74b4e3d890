"""The pure parts: names, listings, manifests, what leaves the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import errors
from fastserve.lifecycle import manifest
from fastserve.lifecycle.manifest import Entry
from fastserve.lifecycle.remote.garbage import Kept, choose
from fastserve.lifecycle.remote.listing import Listed, sort_files, with_manifest
from fastserve.lifecycle.remote.store import listed, translated
from fastserve.lifecycle.remote.urls import cache_name, protocol_of, redacted
from fastserve.lifecycle.remote.wanted import wanted_versions


def test_files_are_sorted_into_models_and_versions() -> None:
    names = [
        "README.md",
        ".git/config",
        "digits/config.pbtxt",
        "digits/labels.txt",
        "digits/warmup/row.bin",
        "digits/notes/other.txt",
        "digits/1/model.xml",
        "digits/1/data/model.bin",
        "digits/01/model.xml",
        "digits/2/.hidden",
    ]
    (model,) = sort_files(Listed(name, 1) for name in names).values()
    assert [file.name for file in model.beside.files] == ["config.pbtxt", "labels.txt", "warmup/row.bin"]
    assert {number: [f.name for f in part.files] for number, part in model.versions.items()} == {
        1: ["data/model.bin", "model.xml"]
    }


@pytest.mark.parametrize(
    "name",
    [
        "digits/1/../x",
        "digits/../x",
        "digits/1//x",
        "digits/1/a b",
        "digits/1/a\\b",
        "digits/1/\u202ex",
        "digits/1/-x",
    ],
)
def test_a_name_that_is_not_safe_is_a_problem_of_its_model(name: str) -> None:
    model = sort_files([Listed(name, 1), Listed("digits/1/ok", 1)])["digits"]
    assert [file.name for file in model.versions[1].files] == ["ok"]
    assert len(model.problems) == 1


@given(st.text(max_size=30))
def test_a_safe_name_stays_below_its_folder(name: str) -> None:
    if not manifest.name_problem(name):
        assert Path("/base", name).parts[:2] == ("/", "base")
        assert ".." not in Path(name).parts
        assert name.isprintable()


@pytest.mark.parametrize(
    ("depth", "length", "good"), [(15, 199, True), (16, 200, True), (17, 200, False), (16, 201, False)]
)
def test_limits_of_names(depth: int, length: int, good: bool) -> None:
    assert (not manifest.name_problem("/".join(["a" * length] * depth))) == good


def test_the_folder_says_which_content() -> None:
    one = sort_files([Listed("m/1/a", 1, "etag")])["m"].versions[1].folder
    assert one == sort_files([Listed("m/1/a", 1, "etag")])["m"].versions[1].folder
    others = [Listed("m/1/a", 1, "other"), Listed("m/1/a", 2, "etag"), Listed("m/1/b", 1, "etag")]
    assert one not in {sort_files([file])["m"].versions[1].folder for file in others}


def test_a_manifest_says_what_belongs_to_a_version() -> None:
    part = sort_files([Listed("m/1/a", 3), Listed("m/1/b", 1), Listed("m/1/fastserve-manifest.json", 9)])[
        "m"
    ].versions[1]
    chosen = with_manifest(part, {"a": Entry(3, "f" * 64)})
    assert [(file.name, file.sha256) for file in chosen.files] == [
        ("a", "f" * 64),
        ("fastserve-manifest.json", ""),
    ]
    for entries in ({"c": Entry()}, {"a": Entry(4)}):
        with pytest.raises(errors.InvalidArgument, match="incomplete"):
            with_manifest(part, entries)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", 'has no object "files"'),
        ('{"files": {"../x": {}}}', r"files\[\"../x\"\]"),
        ('{"files": {"x": {"size": -1}}}', r"size: got -1"),
        ('{"files": {"x": {"size": true}}}', r"size: got true"),
        ('{"files": {"x": {"sha256": "zz"}}}', "64 hexadecimal digits"),
        ('{"files": {"x": 3}}', "got 3"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_manifest_that_is_wrong(text: str, said: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=said):
        manifest.parse_manifest(text)


def test_manifests_and_sums_are_read_back() -> None:
    files = {"a/b.bin": Entry(3, "a" * 64), "c": Entry(4), "d": Entry(sha256="b" * 64)}
    assert manifest.parse_manifest(manifest.write_manifest(files)) == files
    assert manifest.parse_sums(f"{'A' * 64}  ./x\n{'b' * 64} *y z\n".replace("y z", "y")) == {
        "x": Entry(sha256="a" * 64),
        "y": Entry(sha256="b" * 64),
    }
    with pytest.raises(errors.InvalidArgument, match="line 2"):
        manifest.parse_sums(f"{'a' * 64}  x\nnonsense\n")


DAY = 86_400.0


def kept(name: str, age_s: float = 0, *, used: bool = False, shown: bool = False) -> Kept:
    return Kept(Path(name), 10, 1e9 - age_s, used, shown)


def test_what_leaves_the_cache() -> None:
    old, young = kept("old", DAY), kept("young", 10)
    used, shown = kept("used", 9 * DAY, used=True), kept("shown", 8 * DAY, shown=True)
    everything = [shown, young, used, old]
    assert choose(everything, 1e9, 3600, 0) == [old]
    assert choose(everything, 1e9, DAY + 1, 0) == []
    assert choose(everything, 1e9, 3600, 30) == [old]
    assert choose(everything, 1e9, 3600, 29) == [old, young]
    assert choose(everything, 1e9, 3600, 20) == [old, young]
    assert choose(everything, 1e9, 3600, 1) == [old, young, shown]  # never what is in use
    assert choose(everything, 1e9, 3600, 30, coming_bytes=1) == [old, young]


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ({}, [10]),
        ({"config.pbtxt": "version_policy {latest {num_versions: 2}}"}, [9, 10]),
        ({"config.pbtxt": "version_policy {all {}}"}, [2, 9, 10]),
        ({"config.pbtxt": "version_policy {specific {versions: [2, 5]}}"}, [2]),
        ({"model.yaml": "versions: {latest: 2}"}, [9, 10]),
    ],
)
def test_wanted_versions(texts: dict[str, str], wanted: list[int]) -> None:
    assert wanted_versions("m", [10, 9, 2], texts) == wanted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://me:pass@host/x", "s3://***@host/x"),
        ("https://h/x?X-Amz-Signature=abc&y=1 failed", "https://h/x?*** failed"),
        ("GET 'https://h/x?sig=a'", "GET 'https://h/x?***'"),
        ("AccountKey=abc;x", "AccountKey=***"),
        ("nothing to hide @ all?", "nothing to hide @ all?"),
    ],
)
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_the_cache_folder_is_of_the_place_and_not_of_the_password() -> None:
    assert cache_name("https://me:a@h/x?sig=1") == cache_name("https://you:b@h/x/?sig=2")
    assert cache_name("https://h/x") != cache_name("https://h/y")
    assert cache_name("s3://b/a_b") != cache_name("s3://b/a/b")
    assert "/" not in cache_name("s3://b/../../x")


def test_an_unknown_protocol_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.InvalidArgument, match="protocol 'ftp' is not one of s3://"):
        protocol_of("ftp://host/x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        errors.FailedPrecondition, match=r"needs the package s3fs: pip install 'fastserve\[s3\]'"
    ):
        protocol_of("s3://bucket/x")


@pytest.mark.parametrize(
    ("entry", "want"),
    [
        (  # gcsfs
            {
                "size": 5,
                "md5Hash": "XUFAKrxLKna5cZ2REBfFkg==",
                "generation": "17",
                "updated": "2026-01-02T03:04:05.678Z",
            },
            Listed("f", 5, "17", "5d41402abc4b2a76b9719d911017c592", "", 1767323045.678),
        ),
        (  # s3fs, uploaded in parts
            {"size": 5, "ETag": '"5d41402abc4b2a76b9719d911017c592-2"'},
            Listed("f", 5, "5d41402abc4b2a76b9719d911017c592-2"),
        ),
        (  # adlfs
            {"size": 5, "etag": "0x8D", "content_settings": {"content_md5": bytearray(16)}},
            Listed("f", 5, "0x8D", "0" * 32),
        ),
    ],
)
def test_what_the_stores_say_of_a_file(entry: dict[str, object], want: Listed) -> None:
    assert listed("f", entry) == want


def test_errors_of_the_libraries() -> None:
    class Answer(Exception):
        status = 403

    assert isinstance(translated(Answer("no"), "read x"), errors.PermissionDenied)
    assert isinstance(translated(PermissionError("no"), "read x"), errors.PermissionDenied)
    assert isinstance(translated(FileNotFoundError("x"), "read x"), errors.NotFound)
    assert isinstance(translated(OSError("x"), "read x"), errors.Unavailable)
    assert str(translated(TimeoutError(), "read x")) == "cannot read x: no answer in time"
