"""Compiles the path of a request, when a wheel is built with HATCH_BUILD_HOOKS_ENABLE=1: the same modules, by mypyc.

Nothing else changes: every module is in the wheel as Python too, and is what runs where no compiled one is for the
interpreter. What is compiled is listed in pyproject.toml, under the same heading as this hook.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Types of libraries are not needed, as what they make is called as any Python object is.
_MYPY = "[mypy]\nignore_missing_imports = true\nfollow_imports = silent\nexplicit_package_bases = true\n"

_SETUP = """
from mypyc.build import mypycify
from setuptools import setup

modules = {modules!r}
extensions = mypycify(["--config-file=mypy.ini", *modules], opt_level="2", debug_level="0", multi_file=True)
for extension in extensions:  # what is called within one library need not be looked up as if it were another's: 10 %
    extension.extra_compile_args.append("-fvisibility=hidden")
setup(
    name="meshsdk",
    packages=[],
    ext_modules=extensions,
)
"""


class CompiledHook(BuildHookInterface[Any]):
    """Puts compiled modules beside the others of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell hatchling what goes into the wheel."""
        if self.target_name != "wheel" or version == "editable":
            return
        self._folder = TemporaryDirectory(prefix="meshsdk-compiled-")
        folder = Path(self._folder.name)
        for package in self.build_config.packages:
            shutil.copytree(Path(self.root, package), folder / Path(package).name)
        wanted = ((place, name) for place, names in self.config["compile"].items() for name in names)
        found = (path for place, name in wanted for path in sorted((folder / place).glob(f"{name}.py")))
        modules = [str(path.relative_to(folder)) for path in found]
        (folder / "mypy.ini").write_text(_MYPY)
        (folder / "setup.py").write_text(_SETUP.format(modules=modules))
        done = subprocess.run(
            [sys.executable, "setup.py", "build_ext", "--build-lib", "built"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"mypyc could not compile the modules:\n{done.stdout}")
        built = folder / "built"
        build_data["force_include"].update({str(path): str(path.relative_to(built)) for path in built.rglob("*.so")})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is written: what it was made of can go."""
        del version, build_data, artifact_path
        if hasattr(self, "_folder"):
            self._folder.cleanup()
