"""Limits on the source: sizes, names, docstrings, and no block of six lines twice."""

import ast
import inspect
import re
from collections import defaultdict
from pathlib import Path

import pytest

import tunesmith

ROOT = Path(tunesmith.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

# Functions that may be longer than 50 lines, each with its reason.
LONG: dict[str, str] = {}


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=names)
def test_sizes(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef) and node.name not in LONG:
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            length = (node.end_lineno or 0) - node.lineno + 1
            if documented:
                length -= (first.end_lineno or 0) - first.lineno + 1
            assert length <= 50, f"{node.name} has {length} lines"


def test_names_say_something() -> None:
    for path in FILES:
        assert not {"utils", "common", "misc", "helpers"} & set(path.relative_to(ROOT).with_suffix("").parts)


def test_method_files_never_import_each_other() -> None:
    methods = ROOT / "methods"
    shared = {path.stem for path in methods.glob("*.py") if "\n@register(" not in path.read_text(encoding="utf-8")}
    own = {path.stem for path in methods.glob("*.py")} - shared - {"__init__"}
    for path in methods.glob("*.py"):
        if path.stem in own:
            imported = set(re.findall(r"tunesmith\.methods\.(\w+)", path.read_text(encoding="utf-8")))
            assert imported <= shared, f"{path.name} imports {imported - shared}"


def test_commands_are_thin() -> None:
    seen = 0
    for path, tree in TREES.items():
        for node in ast.walk(tree) if path.parent == ROOT / "cli" else ():
            if isinstance(node, ast.FunctionDef) and any(one.arg == "as_json" for one in node.args.args):
                assert (node.end_lineno or 0) - node.body[0].lineno <= 15, node.name
                seen += 1
    assert seen > 20


def public_functions() -> list[tuple[str, ast.FunctionDef]]:
    found = []
    for path, tree in TREES.items():
        for node in tree.body:
            members = [node] if isinstance(node, ast.FunctionDef) else []
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                members = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            found += [(f"{names(path)}:{item.name}", item) for item in members if not item.name.startswith("_")]
    return found


def test_docstrings_name_the_arguments() -> None:
    wrong = []
    for where, node in public_functions():
        doc = ast.get_docstring(node) or ""
        if "Args:" not in doc:
            continue
        section = doc.split("Args:")[1]
        section = re.split(r"\n(?:Returns|Raises|Source|Example):", section)[0]
        documented = set(re.findall(r"^ {4}\*{0,2}(\w+):", section, re.MULTILINE))
        arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        real = {item.arg for item in arguments} - {"self", "cls"}
        real |= {item.arg for item in (node.args.vararg, node.args.kwarg) if item}
        if documented != real:
            wrong.append(f"{where}: documented {sorted(documented)}, real {sorted(real)}")
    assert not wrong, "\n".join(wrong)


def test_public_verbs_are_documented_in_full() -> None:
    for name in tunesmith.__all__:
        thing = getattr(tunesmith, name)
        if inspect.isfunction(thing):
            doc = inspect.getdoc(thing) or ""
            assert "Args:" in doc and "Raises:" in doc, name


def test_no_block_of_six_lines_stands_twice() -> None:
    seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for path in FILES:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        lines = [line for line in lines if len(line) > 3 and not line.startswith(("#", "from ", "import "))]
        for start in range(len(lines) - 5):
            block = tuple(lines[start : start + 6])
            if sum(map(len, block)) > 160:
                seen[block].add(names(path))
    twice = {block[0]: places for block, places in seen.items() if len(places) > 1}
    assert not twice, twice
