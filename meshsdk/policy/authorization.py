"""`authorization`: who may do what at the service."""

# ruff: noqa: RUF009 - `setting` returns dataclasses.field

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from meshsdk.core.access import SOURCE, Access, Rule, check_source
from meshsdk.core.paths import check_path
from meshsdk.core.request import Header
from meshsdk.policy.kinds import Kind, choice, flag, like, passing, text
from meshsdk.policy.section import Form, Section, each, named, omitted, section, setting, single

__all__ = ["AccessRule", "Authorization", "HeaderMatch", "Match", "joined", "path"]

# What an editor may complain about; `check_path` is stricter and says what to write instead.
_PATH = r"/\*|/|(/([A-Za-z0-9_.~!$&'()+,=:@-]|%[0-9A-F]{2})+)+(/\*)?"
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*")
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_RULE_NAME = re.compile(r"(?!default$)(_mesh\.)*[!-~]([ -~]{0,98}[!-~])?")  # `joined` puts `_mesh.` in front


def _something(value: object) -> None:
    if value in ([], {}):
        raise ValueError("would match nothing; leave the key out to match everything")


def _value(value: object) -> str:
    if value == "":
        raise ValueError("empty; write `present: true` for any value")
    return str(text(value))


source = passing(check_source, f"^({SOURCE.pattern})$")
path = passing(check_path, f"^({_PATH})$")
method = like(_METHOD, "not a method; write it in capitals, such as POST")
header_name = like(_HEADER_NAME, "not a header's name; write it in small letters, such as x-beta")
header_value = Kind(_value, {**text.schema, "minLength": 1})
rule_name = like(_RULE_NAME, "not a rule's name; write up to 100 letters of ASCII, and not `default`")


def _some(kind: Kind) -> Form:
    return each(single(kind), before=_something, minItems=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMatch(Section):
    """What a header must be: exactly one of these keys.

    Where it was sent more than once, a `deny` rule matches if any value fits (or any part between commas), an `allow`
    rule only if every value does.
    """

    SCHEMA: ClassVar[Mapping[str, Any]] = {"minProperties": 1, "maxProperties": 1}

    exact: str | None = omitted(header_value, "The value, letter by letter.")
    prefix: str | None = omitted(header_value, "How the value begins.")
    present: bool | None = omitted(flag, "`true`: it is there, with any value. `false`: it is not there.")

    def misfits(self) -> Iterator[tuple[str, str]]:
        """One condition."""
        if [self.exact, self.prefix, self.present].count(None) != 2:
            yield "", "write exactly one of exact, prefix and present"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match(Section):
    """Which requests a rule is about. Every key that is given must match; `{}` is every request.

    **Paths** are compared with every path that a server could read in what was sent: escapes decoded or not,
    `/a/../b` resolved or not, `//` merged or not, `;parameters` and dots at the end of a name kept or not, `%2f` and
    `\\` taken for `/` or not. A `deny` rule matches if any of them does, an `allow` rule only if every one does. What
    no server should get (`%00`, broken or doubled escapes, a fragment) matches every `deny` rule with paths and no
    `allow` rule with paths. The query does not count, the case does: paths are case-sensitive, so a server that
    ignores case needs a rule for each spelling. Below a prefix that the application does not route (`root_path`,
    `SCRIPT_NAME`) the path with it and the path without are both looked at in this way.
    """

    sources: tuple[str, ...] | None = omitted(
        _some(source),
        """Who calls, by verified identity: a service's name (in our own trust domain, in any datacenter), a SPIFFE id,
        a SPIFFE id that ends in `/*` for all below it, `"*"` for every verified caller, `anonymous` for callers
        without identity. Left out: everyone, `anonymous` too.""",
        key="from",
    )
    methods: tuple[str, ...] | None = omitted(
        _some(method), "In capitals. `HEAD` is not `GET`: list both. Left out: every method."
    )
    paths: tuple[str, ...] | None = omitted(
        _some(path),
        """`/charge` is that path, with or without a slash at its end; `/admin/*` is `/admin` and all below it, `/*`
        every path. Left out: every path.""",
    )
    headers: Mapping[str, HeaderMatch] | None = omitted(
        named(header_name, section(HeaderMatch), before=_something, minProperties=1),
        """By header name in small letters: what each must be. `x_role` is `x-role` to some servers: a `deny` rule about
        the one matches either, an `allow` rule must match with the other and without.""",
    )

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRule(Section):
    """One rule: exactly one of `allow` and `deny`."""

    SCHEMA: ClassVar[Mapping[str, Any]] = {"oneOf": [{"required": ["allow"]}, {"required": ["deny"]}]}

    name: str | None = omitted(
        rule_name, "What logs and answers call the rule; left out, its place, such as `rules[1].deny`."
    )
    audit: bool = setting(
        flag,
        False,
        """`true` reports what the rule would change, and changes nothing: a rule is tried on live traffic before it is
        enforced.""",
    )
    deny: Match | None = omitted(section(Match), "Requests that are refused.")
    allow: Match | None = omitted(section(Match), "Requests that may pass if no `deny` rule matches.")

    def misfits(self) -> Iterator[tuple[str, str]]:
        """One verdict."""
        if (self.allow is None) == (self.deny is None):
            yield "", "write exactly one of allow and deny"

    def rule(self, number: int) -> Rule:
        """As the core reads it."""
        action: Literal["allow", "deny"] = "allow" if self.deny is None else "deny"
        match = self.deny or self.allow or Match()
        return match.rule(self.name or f"rules[{number}].{action}", action, audit=self.audit)


@dataclass(frozen=True, slots=True, kw_only=True)
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
        choice("allow", "deny"),
        "allow",
        """What holds where no rule matches and there is no `allow` rule. `allow` is the default so that a mesh without
        rules works; write `deny` in `_mesh` to have every service name its callers.""",
    )
    rules: tuple[AccessRule, ...] = setting(
        each(section(AccessRule)),
        [],
        "The rules, in any order. Those of `_mesh` and of the service are joined, not replaced.",
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
