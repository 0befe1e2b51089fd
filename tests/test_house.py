"""The house rules that a machine can check: what ships, what imports what, what a module may hold."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HOUSE = Path(__file__).parent.parent
PACKAGES = ("fusion", "multimodal_rec", "towers")
MODULES = sorted(path for package in PACKAGES for path in (HOUSE / package).rglob("*.py"))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=False)


def name_of(path: Path) -> str:
    return str(path.relative_to(HOUSE))


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return wheel.namelist()


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel_names: list[str]) -> None:
    top_level = {name.split("/")[0] for name in wheel_names}
    assert {name for name in top_level if not name.endswith(".dist-info")} == set(PACKAGES)
    assert {name_of(path) for path in MODULES} <= set(wheel_names)


def test_the_wheel_carries_its_licence(wheel_names: list[str]) -> None:
    assert any(name.endswith("/licenses/LICENSE") for name in wheel_names)


def test_datasets_is_no_package() -> None:
    assert list((HOUSE / "datasets").rglob("__init__.py")) == []


def test_imports_go_one_way() -> None:
    linted = run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache")
    assert linted.returncode == 0, linted.stdout
    assert "1 kept, 0 broken" in linted.stdout


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_one_idea(path: Path) -> None:
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= 400, f"{name_of(path)} has {num_lines} lines: find its second idea and move it out"
    assert path.stem not in {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_loaded_that_could_run_code(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in ast.unparse(node), f"{name_of(path)}:{node.lineno}"
    assert imported.isdisjoint({"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"})


def public_functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]
    for node in (node for body in bodies for node in body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (
            not node.name.startswith("_") or node.name == "__init__"
        ):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_signatures_are_short_and_named(path: Path) -> None:
    # The command line's functions are its options, one parameter an option, and nobody calls them from Python.
    if path.name == "cli.py" or path.parent.name == "commands":
        return
    for function in public_functions(path):
        where = f"{name_of(path)}:{function.lineno} {function.name}"
        arguments = function.args
        positional = [a.arg for a in (*arguments.posonlyargs, *arguments.args) if a.arg not in {"self", "cls"}]
        assert arguments.kwarg is None, f"{where} takes **{arguments.kwarg.arg}" if arguments.kwarg else ""
        assert len(positional) + len(arguments.kwonlyargs) <= 7, f"{where} takes more than seven parameters"


def test_constraints_pin_a_version_of_everything_required() -> None:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (HOUSE / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in pins)}
    extras = [text for group in project["optional-dependencies"].values() for text in group]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        if requirement.name != project["name"]:
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"constraints.txt pins {requirement.name} at {version}"


def test_continuous_integration_runs_what_a_contributor_runs() -> None:
    script = HOUSE / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make check test" in script.read_text(encoding="utf-8")
    makefile = (HOUSE / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE)) >= {"demo", "test", "check", "bench"}


def test_every_decision_is_listed() -> None:
    folder = HOUSE / "docs" / "decisions"
    listed = re.findall(r"\]\((.+?)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(path.name for path in folder.glob("[0-9]*.md"))
