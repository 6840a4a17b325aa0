"""Invariants: a pattern that is taken says of every text what Python's `re` says where both mean the same, in time that
grows with the text alone; a pattern that is not taken says why.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk.core.patterns import MAX_TEXT, Pattern

ATOMS = st.sampled_from(
    ["a", "b", "/", ".", "[ab]", "[^a]", "[a-c/]", r"\d", r"\w", r"\.", "1", r"\x61", "[^/]", r"[\d-]"]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map("|".join).map("({})".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{1,}", "*?", "??"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=8,
)
TEXTS = st.text("ab/1.c-", max_size=8)


@given(PATTERNS, st.lists(TEXTS, min_size=1, max_size=5))
@settings(deadline=None, max_examples=400)
def test_what_python_means_too(pattern, texts):
    ready, second = Pattern(pattern), re.compile(pattern, re.ASCII)
    for text in texts:
        assert ready.matches(text) is (second.fullmatch(text) is not None)


@given(st.text("ab()[]{}|*+?.^$\\-,123:<>P=!xdwpQ", max_size=12) | st.text(max_size=8), TEXTS)
@settings(deadline=None, max_examples=400)
def test_any_pattern_is_taken_or_refused_with_a_reason(pattern, text):
    reason = refusal(pattern)
    assert reason or Pattern(pattern).matches(text) in {True, False}


def refusal(pattern: str) -> str:
    try:
        Pattern(pattern)
    except ValueError as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("/v[0-9]+/.*", "/v12/x", True),
        ("/v[0-9]+/.*", "/v/x", False),
        ("^/a$|^/b$", "/b", True),
        ("/a", "/ab", False),
        ("(?i)/ADMIN", "/aDmin", True),
        ("(?P<id>[a-z]+)/(?<n>x)", "ab/x", True),
        ("a{,3}", "a{,3}", True),
        ("a{2,}", "a", False),
        ("a{2,}", "aaa", True),
        ("x{0}y", "y", True),
        ("(){3}a", "a", True),
        ("[]a]+", "]a", True),
        ("[^]a]", "]", False),
        ("[a-]", "-", True),
        (r"\s\S\D\W", "\t1a-", True),
        (r"\s", "\v", False),
        (r"\w", "é", False),
        (r"\x{e9}", "é", True),
        (r"[\n\x41]", "A", True),
        (".", "\n", False),
        ("", "", True),
        ("a|", "", True),
    ],
)
def test_patterns(pattern, text, fits):
    assert Pattern(pattern).matches(text) is fits


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(?=a)", "group of a kind"),
        ("(?i:a)", "group of a kind"),
        (r"(a)\1", r"escape \\1"),
        (r"\bx", r"escape \\b"),
        (r"\pL", r"escape \\p"),
        (r"\Qa\E", r"escape \\Q"),
        (r"a\z", r"escape \\z"),
        ("\\", "escape"),
        (r"\x{110000}", "no character"),
        ("[[:alpha:]]", "class by name"),
        ("a**", "repeat of a repeat"),
        ("a*+", "repeat of a repeat"),
        ("*", "repeat of nothing"),
        ("a|+", "repeat of nothing"),
        ("{2}", "repeat of nothing"),
        ("a{3,2}", "less than its least"),
        ("a^b", "anchor in the middle"),
        ("(a$)", "anchor in the middle"),
        ("(a", "without its"),
        ("a)", "without its"),
        ("[a", "without its"),
        ("[z-a]", "range that is none"),
        (r"[\d-z]", "range that is none"),
        ("x" * 513, "at most 512"),
        ("(" * 21 + ")" * 21, "20 deep"),
        ("a{1000}", "256 states"),
        ("((a{9}){9}){9}", "256 states"),
        ("((((){1000}){1000}){1000}){1000}", "256 states"),
        ("((((x{0}){1000}){1000}){1000}){1000}", "256 states"),
    ],
)
@pytest.mark.timeout(5)
def test_what_is_refused(pattern, why):
    with pytest.raises(ValueError, match=why):
        Pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|aa)*b", "(a*)*b", ".*.*.*.*.*b", "(.{1,9}){9}b", "((a?){20}a{20}){4}b"]
)
@pytest.mark.timeout(10)
def test_no_text_makes_a_pattern_slow(pattern):
    assert Pattern(pattern).matches("a" * MAX_TEXT) is False


def test_of_a_text_too_long_nothing_is_said():
    assert Pattern(".*").matches("a" * (MAX_TEXT + 1)) is None


def test_texts_without_end_do_not_fill_the_memory():
    pattern = Pattern(".*x")
    for number in range(10_000):
        pattern.matches(chr(0x1000 + number))
    assert len(pattern._kept) <= 4096
    assert pattern.matches("yx")
