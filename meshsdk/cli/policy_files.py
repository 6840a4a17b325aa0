"""Policy documents as files: which service each is for, and all mistakes of all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meshsdk.cli.consul import destination
from meshsdk.cli.documents import MESH_WIDE, PREFIX
from meshsdk.errors import ConfigError, PolicyError
from meshsdk.policy.document import Document, parse
from meshsdk.policy.effective import check

__all__ = ["PolicyFile", "Verdict", "by_service", "judge", "read_file"]


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A file with a good document."""

    path: Path
    service: str
    text: bytes
    document: Document


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with one file; nothing where `mistakes` is empty."""

    path: Path
    mistakes: tuple[str, ...] = ()


def read_file(path: Path, service: str | None = None) -> PolicyFile:
    """Read and check one file.

    Args:
        service: whose document it is; the file's name without its ending where None.

    Raises:
        ConfigError: it cannot be read, or names no service.
        PolicyError: the document has mistakes; `source` is the file.
    """
    name = _service(path, service)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; give YAML or JSON files") from error
    try:
        return PolicyFile(path, name, text, parse(text, PREFIX + name))
    except PolicyError as error:
        raise PolicyError(str(path), error.mistakes) from error


def judge(paths: Sequence[Path]) -> list[Verdict]:
    """Check files, each alone and over the `_mesh` file among them.

    Raises:
        ConfigError: one of them cannot be read, or two are for the same service.
    """
    good: list[PolicyFile] = []
    verdicts = {}
    for path in paths:
        try:
            good.append(read_file(path))
            verdicts[path] = Verdict(path)
        except PolicyError as error:
            verdicts[path] = Verdict(path, error.mistakes)
    mesh = by_service(good).get(MESH_WIDE)
    for file in good:
        if file is mesh:
            continue
        try:
            check(mesh.document if mesh else None, file.document)
        except PolicyError as error:
            verdicts[file.path] = Verdict(file.path, error.mistakes)
    return list(verdicts.values())


def by_service(files: Sequence[PolicyFile]) -> dict[str, PolicyFile]:
    """Sort files by service.

    Raises:
        ConfigError: two are for the same one.
    """
    found: dict[str, PolicyFile] = {}
    for file in files:
        if file.service in found:
            raise ConfigError(f"{found[file.service].path} and {file.path} are both for {file.service}: give one")
        found[file.service] = file
    return found


def _service(path: Path, service: str | None) -> str:
    try:
        return destination(path.stem if service is None else service, (MESH_WIDE,))
    except ConfigError as error:
        where = "name the file <service>.yaml" if service is None else "correct --service"
        raise ConfigError(f"{path}: {error}; {where}") from error
