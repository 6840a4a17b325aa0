"""`authorization`: who may do what at the service."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from meshsdk.core.access import SOURCE, Access, Rule, check_source
from meshsdk.core.paths import check_path
from meshsdk.core.request import Header
from meshsdk.policy.section import Section, omitted, setting

__all__ = ["AccessRule", "Authorization", "HeaderMatch", "Match", "joined"]

# What an editor may complain about; `check_path` is stricter and says what to write instead.
_PATH = r"/\*|/|(/([A-Za-z0-9_.~!$&'()+,=:@-]|%[0-9A-F]{2})+)+(/\*)?"
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*")
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_RULE_NAME = re.compile(r"(?!default$)(_mesh\.)*[!-~]([ -~]{0,98}[!-~])?")  # `joined` puts `_mesh.` in front


def _wrong(why: str) -> PydanticCustomError:
    return PydanticCustomError("authorization", "{why}", {"why": why})


def _passes(check: Callable[[str], None]) -> AfterValidator:
    """A check that raises ValueError, as pydantic takes it."""

    def checked(text: str) -> str:
        try:
            check(text)
        except ValueError as refused:
            raise _wrong(str(refused)) from None
        return text

    return AfterValidator(checked)


def _like(pattern: re.Pattern[str], advice: str) -> AfterValidator:
    def check(text: str) -> None:
        if not pattern.fullmatch(text):
            raise ValueError(advice)

    return _passes(check)


def _schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^({pattern})$"})


def _something(value: object) -> object:
    if value in ([], {}):
        raise _wrong("would match nothing; leave the key out to match everything")
    return value


def _some_text(value: object) -> object:
    if value == "":
        raise _wrong("empty; write `present: true` for any value")
    return value


_NOT_EMPTY = BeforeValidator(_something)
_LIST = Field(strict=False, json_schema_extra={"minItems": 1})

Source = Annotated[str, _passes(check_source), _schema(SOURCE.pattern)]
Path = Annotated[str, _passes(check_path), _schema(_PATH)]
Method = Annotated[str, _like(_METHOD, "not a method; write it in capitals, such as POST"), _schema(_METHOD.pattern)]
HeaderName = Annotated[
    str,
    _like(_HEADER_NAME, "not a header's name; write it in small letters, such as x-beta"),
    _schema(_HEADER_NAME.pattern),
]
RuleName = Annotated[
    str,
    _like(_RULE_NAME, "not a rule's name; write up to 100 letters of ASCII, and not `default`"),
    _schema(_RULE_NAME.pattern),
]
Value = Annotated[str, BeforeValidator(_some_text), Field(json_schema_extra={"minLength": 1})]


class HeaderMatch(Section):
    """What a header must be: exactly one of these keys.

    Where it was sent more than once, a `deny` rule matches if any value fits (or any part between commas), an `allow`
    rule only if every value does.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    exact: Value = omitted("The value, letter by letter.")
    prefix: Value = omitted("How the value begins.")
    present: bool = omitted("`true`: it is there, with any value. `false`: it is not there.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise _wrong("write exactly one of exact, prefix and present")
        return self


Headers = Annotated[dict[HeaderName, HeaderMatch], _NOT_EMPTY, Field(json_schema_extra={"minProperties": 1})]


class Match(Section):
    """Which requests a rule is about. Every key that is given must match; `{}` is every request.

    **Paths** are compared with every path that a server could read in what was sent: escapes decoded or not,
    `/a/../b` resolved or not, `//` merged or not, `;parameters` and dots at the end of a name kept or not, `%2f` and
    `\\` taken for `/` or not. A `deny` rule matches if any of them does, an `allow` rule only if every one does. What
    no server should get (`%00`, broken or doubled escapes, a fragment) matches every `deny` rule with paths and no
    `allow` rule with paths. The query does not count, the case does: paths are case-sensitive, so a server that
    ignores case needs a rule for each spelling.
    """

    sources: Annotated[tuple[Source, ...], _NOT_EMPTY, _LIST] = omitted(
        """Who calls, by verified identity: a service's name (in our own trust domain, in any datacenter), a SPIFFE id,
        a SPIFFE id that ends in `/*` for all below it, `"*"` for every verified caller, `anonymous` for callers
        without identity. Left out: everyone, `anonymous` too.""",
        alias="from",
    )
    methods: Annotated[tuple[Method, ...], _NOT_EMPTY, _LIST] = omitted(
        "In capitals. `HEAD` is not `GET`: list both. Left out: every method."
    )
    paths: Annotated[tuple[Path, ...], _NOT_EMPTY, _LIST] = omitted(
        """`/charge` is that path, with or without a slash at its end; `/admin/*` is `/admin` and all below it, `/*`
        every path. Left out: every path."""
    )
    headers: Headers = omitted("By header name in small letters: what each must be.")

    def rule(self, name: str, action: Literal["allow", "deny"], *, audit: bool) -> Rule:
        """As the core reads it."""
        headers = (self.headers or {}).items()
        return Rule(
            name,
            action,
            self.sources or (),
            self.methods or (),
            self.paths or (),
            tuple(Header(key, match.exact, match.prefix, match.present) for key, match in headers),
            audit,
        )


class AccessRule(Section):
    """One rule: exactly one of `allow` and `deny`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["allow"]}, {"required": ["deny"]}]})

    name: RuleName = omitted("What logs and answers call the rule; left out, its place, such as `rules[1].deny`.")
    audit: bool = setting(
        False,
        """`true` reports what the rule would change, and changes nothing: a rule is tried on live traffic before it is
        enforced.""",
    )
    deny: Match = omitted("Requests that are refused.")
    allow: Match = omitted("Requests that may pass if no `deny` rule matches.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set & {"allow", "deny"}) != 1:
            raise _wrong("write exactly one of allow and deny")
        return self

    def rule(self, number: int) -> Rule:
        """As the core reads it."""
        action: Literal["allow", "deny"] = "deny" if self.deny else "allow"
        match = self.deny or self.allow
        return match.rule(self.name or f"rules[{number}].{action}", action, audit=self.audit)


class Authorization(Section):
    """Who may do what at the service. What it refuses is answered with 403.

    `deny` rules come first: one that matches refuses. Then `allow` rules: one that matches lets pass. **As soon as
    there is an `allow` rule, what none of them matches is refused**, whatever `default` says. Consul's intentions are
    asked before: both must let a request pass.

    It is the served side's: it stands in `_mesh` and in a service's document, not in `from`; name callers in the
    rules. The rules of `_mesh` and of the service hold together, so a service cannot lift what the mesh denies; `_mesh`
    calls its rules `_mesh.rules[0].deny`. Of `default`, the service's wins.

    ```yaml
    authorization:
      rules:
        - deny: {from: [guest], paths: [/admin/*]}
        - name: only checkout charges
          allow: {from: [checkout], methods: [POST], paths: [/charge]}
    ```
    """

    default: Literal["allow", "deny"] = setting(
        "allow",
        """What holds where no rule matches and there is no `allow` rule. `allow` is the default so that a mesh without
        rules works; write `deny` in `_mesh` to have every service name its callers.""",
    )
    rules: Annotated[tuple[AccessRule, ...], Field(strict=False)] = setting(
        [], "The rules, in any order. Those of `_mesh` and of the service are joined, not replaced."
    )

    def plan(self) -> Access:
        """As the core reads it."""
        return Access(self.default, tuple(rule.rule(number) for number, rule in enumerate(self.rules)))

    @staticmethod
    def dump(access: Access) -> dict[str, Any]:
        """As a document would write it."""
        return {"default": access.default, "rules": [_dumped(rule) for rule in access.rules]}


def _dumped(rule: Rule) -> dict[str, Any]:
    match: dict[str, Any] = {
        "from": list(rule.sources),
        "methods": list(rule.methods),
        "paths": list(rule.paths),
        "headers": {header.name: _header(header) for header in rule.headers},
    }
    given = {key: value for key, value in match.items() if value}
    return {"name": rule.name, **({"audit": True} if rule.audit else {}), rule.action: given}


def _header(header: Header) -> dict[str, Any]:
    values = {"exact": header.exact, "prefix": header.prefix, "present": header.present}
    return {key: value for key, value in values.items() if value is not None}


def joined(mesh: Mapping[str, Any], own: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rules of the mesh's and of a service's document as one list, each with the name decisions call it.

    Args:
        mesh, own: the sections of the documents, found good; empty where there is no document.
    """
    return [*_named(mesh, "_mesh."), *_named(own, "")]


def _named(content: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    rules = content.get("authorization", {}).get("rules", ())
    return [
        {**rule, "name": prefix + rule.get("name", f"rules[{number}].{'deny' if 'deny' in rule else 'allow'}")}
        for number, rule in enumerate(rules)
    ]
