"""The layout of the project: imports run one way, and files and functions stay small."""

import ast
from graphlib import TopologicalSorter

import pytest

from common.files import HOME

COMMANDS = {"train", "inference", "preprocess", "report", "tune", "demo"}
# A module imports its own floor and the floors below; commands are imported by nobody.
FLOORS = [
    {"common"},
    {"labels", "augment", "loss", "model", "metrics"},
    {"photos"},
    {"background"},
    {"dataset"},
    {"options"},
    {"experiment"},
    {"training"},
    {"reporting"},
    {"search"},
    {"drawing"},
]
FOLDERS = sorted(path.parent.name for path in HOME.glob("*/__init__.py"))
TOP = sorted(HOME.glob("*.py"))
MODULES = TOP + sorted(path for folder in FOLDERS for path in (HOME / folder).glob("*.py"))
SOURCES = MODULES + sorted((HOME / "scripts").glob("*.py"))
NAMES = {".".join(path.relative_to(HOME).with_suffix("").parts): path for path in MODULES}


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path):
    """Names of the project's modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found & NAMES.keys()


def floor(name):
    top = name.split(".")[0]
    return next(number for number, names in enumerate(FLOORS) if top in names)


def test_every_module_stands_on_a_floor_or_is_a_command():
    assert {name.split(".")[0] for name in NAMES} == COMMANDS.union(*FLOORS)


@pytest.mark.parametrize("name", NAMES)
def test_imports_run_one_way(name):
    used = imports(NAMES[name])
    allowed = {"train"} if name == "tune" else set()  # which it hands to the search
    assert not (used & COMMANDS) - allowed
    if name not in COMMANDS:
        assert not {other for other in used if floor(other) > floor(name)}


def test_no_module_imports_itself_by_a_detour():
    order = TopologicalSorter({name: imports(path) - {name} for name, path in NAMES.items()})
    assert len(list(order.static_order())) == len(NAMES)


def test_a_folder_says_what_lives_in_it_and_no_more():
    for folder in FOLDERS:
        body = tree(HOME / folder / "__init__.py").body
        assert len(body) == 1 and ast.get_docstring(tree(HOME / folder / "__init__.py")), folder


def test_files_and_folders_stay_small():
    assert len(TOP) <= 13
    for folder in FOLDERS:
        assert len(list((HOME / folder).glob("*.py"))) <= 9 + 1, folder  # and __init__.py
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {path.name: count for path, count in lines.items() if count > 350}


def functions():
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(HOME)}:{node.name}", node


def test_a_function_fits_on_a_screen_and_takes_few_arguments():
    for name, node in functions():
        positional = [arg.arg for arg in node.args.posonlyargs + node.args.args]
        required = [arg for arg in positional if arg not in ("self", "cls", "context")]
        required += [
            arg
            for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            if default is None
        ]
        assert node.end_lineno - node.lineno < 60, name
        assert len(required) <= 6, name
