"""The shape of the code: every module says what is public, functions fit on a screen, files can be read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    file
    for folder in ("meshsdk", "registry/meshsdk_registry", "sidecar/meshsdk_sidecar")
    for file in (ROOT / folder).rglob("*.py")
)

LONGEST_FUNCTION = 60  # lines
LONGEST_FILE = 400


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_public_names_are_listed(file: Path) -> None:
    """`__all__` names what the module defines without an underscore, and nothing that it does not have."""
    tree = ast.parse(file.read_text())
    listed = _listed(tree)
    assert listed is not None, "no __all__"
    assert sorted(set(listed)) == sorted(listed), "a name twice"
    assert set(listed) <= _bound(tree), "names that are not there"
    defined = {
        node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }
    forgotten = {name for name in defined if not name.startswith("_")} - set(listed) - _of_typer(tree)
    assert not forgotten, f"public by name and not listed: {sorted(forgotten)}"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_functions_and_files_are_short(file: Path) -> None:
    """A function is a screen at most, a file can be read at once."""
    text = file.read_text()
    assert text.count("\n") <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{node.name} is too long"


def _listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, (ast.Assign, ast.AnnAssign))
            assert node.value is not None
            return list(ast.literal_eval(node.value))
    return None


def _bound(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return names


def _of_typer(tree: ast.Module) -> set[str]:
    """Commands that a decorator registers are reached by the command line, not by import."""
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(_is_registration(d) for d in node.decorator_list)
    }


def _is_registration(decorator: ast.expr) -> bool:
    return (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and decorator.func.attr in {"command", "callback"}
    )
