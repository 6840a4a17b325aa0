"""Tokens are judged by the keys known now; keys are followed as long as the policy names them, in each process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshsdk.core.tokens import BadToken, Issuer, Jwt
from meshsdk.discovery.background import Background
from meshsdk.tokens import Tokens
from tests.tokens.issuing import AUDIENCE, NAME, jwk, jwks, token


@pytest.fixture
def background() -> Iterator[Background]:
    made = Background("tokens-test")
    yield made
    made.stop()


@pytest.fixture
def tokens(background: Background) -> Tokens:
    return Tokens(background, file_period=0.01)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "keys.json"
    made.write_bytes(jwks())
    return made


def policy(*files: Path) -> Jwt:
    return Jwt(
        tuple(Issuer(NAME if not number else f"i{number}", str(f), (AUDIENCE,)) for number, f in enumerate(files))
    )


def code(tokens: Tokens, jwt: Jwt, text: str) -> str:
    """Why the token is refused; empty where it is good."""
    try:
        tokens.claims(jwt, text)
    except BadToken as refused:
        return refused.code
    return ""


def until(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def test_who_waits_for_the_first_keys_finds_them(tokens: Tokens, file: Path) -> None:
    jwt = policy(file)
    await tokens.await_known(jwt, 10)
    assert tokens.claims(jwt, token())["sub"] == "ada"


async def test_waiting_is_bounded_and_ends_with_the_first_failure(tokens: Tokens, tmp_path: Path) -> None:
    began = time.monotonic()
    await tokens.await_known(policy(tmp_path / "none.json"), 10)
    await tokens.await_known(None, 10)
    assert time.monotonic() - began < 5


def test_before_the_first_keys_nobody_is_called_bad(tokens: Tokens, tmp_path: Path) -> None:
    jwt = policy(tmp_path / "later.json")
    assert code(tokens, jwt, token()) == "unavailable"
    (tmp_path / "later.json").write_bytes(jwks())
    until(lambda: code(tokens, jwt, token()) == "")


def test_keys_that_were_taken_out_are_good_no_longer(tokens: Tokens, file: Path) -> None:
    jwt = policy(file)
    until(lambda: code(tokens, jwt, token()) == "")
    file.write_bytes(jwks(jwk(), jwk("RSA", 1)))
    until(lambda: code(tokens, jwt, token("RSA", 1)) == "")
    assert code(tokens, jwt, token()) == ""
    file.write_bytes(jwks(jwk("RSA", 1)))
    until(lambda: code(tokens, jwt, token()) == "key")


def test_a_changed_policy_keeps_the_keys_it_still_names(tokens: Tokens, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(jwks(jwk("RSA", 1)))
    first, second = policy(file), policy(file, other)
    until(lambda: code(tokens, first, token()) == "")
    assert code(tokens, second, token()) == ""  # at once
    until(lambda: code(tokens, second, token("RSA", 1, iss="i1")) == "")
    assert code(tokens, first, token("RSA", 1, iss="i1")) == "issuer"


def test_what_the_policy_no_longer_names_is_not_followed(tokens: Tokens, file: Path) -> None:
    jwt = policy(file)
    until(lambda: code(tokens, jwt, token()) == "")
    (followed,) = tokens._known.values()
    tokens.follow(None)
    assert followed.task is not None
    until(followed.task.done)
    assert "nowhere" in repr(tokens)


def test_a_closed_one_judges_by_what_it_knows(tokens: Tokens, file: Path) -> None:
    jwt = policy(file)
    until(lambda: code(tokens, jwt, token()) == "")
    tokens.close()
    assert code(tokens, jwt, token()) == ""


def test_a_forked_child_knows_and_follows(tokens: Tokens, file: Path) -> None:
    jwt = policy(file)
    until(lambda: code(tokens, jwt, token()) == "")
    child = os.fork()
    if child == 0:
        try:
            assert code(tokens, jwt, token()) == ""
            file.write_bytes(jwks(jwk("RSA", 1)))
            until(lambda: code(tokens, jwt, token("RSA", 1)) == "")
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_without_the_library_no_token_is_taken(tokens: Tokens, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = token()
    monkeypatch.setitem(sys.modules, "jwt", None)
    assert code(tokens, policy(file), good) == "unavailable"


def test_others_may_judge_by_what_was_read(tokens: Tokens, file: Path, tmp_path: Path) -> None:
    absent = tmp_path / "none.json"
    jwt = policy(file, absent)
    assert tokens.looks() == {}
    tokens.follow(jwt)
    until(lambda: len(tokens.looks()) == 2)
    assert tokens.looks()[str(file)] == (1, file.read_bytes())
    assert tokens.looks()[str(absent)][1] == b""
    new = jwks(jwk("P-256"))
    file.write_bytes(new)
    until(lambda: tokens.looks()[str(file)][1] == new)
    file.write_text("junk")
    until(lambda: tokens.looks()[str(file)][0] > 2)
    assert tokens.looks()[str(file)][1] == new, "it stays in force"
    tokens.follow(None)
    assert tokens.looks() == {}
