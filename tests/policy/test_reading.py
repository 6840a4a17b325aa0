"""From text to plain values."""

from __future__ import annotations

import pytest

from meshsdk.errors import PolicyError
from meshsdk.policy.reading import MAX_BYTES, path_text, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on: off", {"on": "off"}),
        ("yes: no", {"yes": "no"}),
        ("a: 010", {"a": 10}),
        ("a: 0x10", {"a": "0x10"}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: 12:30", {"a": "12:30"}),
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        ("a: 1e3", {"a": 1000.0}),
        ("a: -1.5", {"a": -1.5}),
        ("a: .5", {"a": 0.5}),
        ("a: '5'", {"a": "5"}),
        ("a: [true, False, null, ~, ]", {"a": [True, False, None, None]}),
        ("a: |\n  text\n", {"a": "text\n"}),
        ("\ufeffa: 1", {"a": 1}),
        ('{"a": {"b": [1, 2.5, "x", null, true]}}', {"a": {"b": [1, 2.5, "x", None, True]}}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
    ],
)
def test_values_are_what_yaml_1_2_says(text, value):
    reading = read(text, "test")
    assert (reading.value, reading.mistakes) == (value, [])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"\xff\xfea\x00", "not text in UTF-8"),
        (b"a: \x00", "character 4: not printable"),
        ("a: \ud800", "not text in UTF-8"),
        (b"", "empty; write at least `version: 1`"),
        (b"x" * (MAX_BYTES + 1), "524289 bytes"),
        ("a: 1\n\tb: 2", "line 2, column 1: found a tab"),
        ("a: *b", "line 1: *b stands for nothing"),
        ("[" * 40, "nested deeper than 32"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested deeper than 32"),
        ("[" + "1," * 20_001 + "]", "more than 20000 values"),
        ('{"a":[' + "1," * 20_001 + "1]}", "more than 20000 values"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("? {a: b}\n: c", "line 1: a key must be a word"),
    ],
)
def test_text_that_cannot_be_taken(text, part):
    with pytest.raises(PolicyError, match="test: 1 mistake") as refused:
        read(text, "test")
    assert part in refused.value.mistakes[0]


def test_lines_are_those_of_the_keys():
    reading = read("# head\na:\n  b: 1\n  c:\n    - 2\n", "test")
    assert reading.lines == {(): 2, ("a",): 2, ("a", "b"): 3, ("a", "c"): 4, ("a", "c", 0): 5}


def test_a_key_written_twice_is_a_mistake_with_its_path():
    assert read("a: {b: 1, b: 2}", "test").mistakes == [(("a", "b"), "written twice; keep one")]
    assert read('{"a": {"b": 1, "b": 2}}', "test").mistakes == [(("a", "b"), "written twice; keep one")]


@pytest.mark.parametrize(
    ("text", "tag"), [("a: ! 5", "!"), ("a: !!str 5", "!!str"), ("a: !own {b: 1}", "!own"), ("!own a: 1", "!own")]
)
def test_tags_are_mistakes(text, tag):
    assert read(text, "test").mistakes == [(("a",), f"{tag}: tags are not taken; write the plain value")]


def test_a_path_reads_like_one():
    assert path_text(("retries", "on", 2)) == "retries.on[2]"
    assert path_text(()) == ""


def test_without_libyaml_the_same_comes_out(monkeypatch):
    import yaml

    import meshsdk.policy.reading as module

    monkeypatch.setattr(module, "_LOADER", yaml.SafeLoader)
    assert read("retries: {on: [reset, 503], attempts: 2}", "test").value == {
        "retries": {"on": ["reset", 503], "attempts": 2}
    }
    with pytest.raises(PolicyError, match=r"line 2, column 1.*indent with spaces"):
        read("a: 1\n\tb: 2", "test")
    with pytest.raises(PolicyError, match="not printable"):
        read("a: \x00", "test")
