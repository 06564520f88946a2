"""The house stands: imports go down only, `import chainops` stays light, and every module says what it is."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "chainops"
FLOORS = {
    0: {"core"},
    1: {"models", "stores", "text"},
    2: {
        "cache",
        "routing",
        "resilience",
        "guardrails",
        "review",
        "knowledge",
        "memory",
        "prompts",
        "rollout",
        "observe",
    },
    2.5: {"testing"},
    3: {"spec"},
    4: {"evals", "serve", "batch", "widgets"},
    5: {"cli"},
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
SURFACE = 3.5  # `chainops/__init__.py` shows names of the rooms up to `spec`; what stands below may not use it
# Beside, not below: the extractive model picks sentences with the tools of `text`. Nothing may be added here.
ASIDE = {("models", "text")}
HEAVY = {
    "anywidget",
    "bm25s",
    "bs4",
    "faiss",
    "fastapi",
    "ipywidgets",
    "langchain_openai",
    "langserve",
    "mlflow",
    "numpy",
    "onnx",
    "onnxruntime",
    "openai",
    "pandas",
    "pypdf",
    "redis",
    "rich",
    "scipy",
    "sentence_transformers",
    "sqlalchemy",
    "tokenizers",
    "torch",
    "transformers",
    "typer",
    "uvicorn",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of all that is imported, also inside functions and by `require` or `import_module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                # `from chainops import cache` names the room in the alias
                yield node.lineno, f"{node.module}.{alias.name}" if node.module == "chainops" else str(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"require", "import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def room_of(module: str) -> str | None:
    """The room a chainops module is in; "" for the surface; None for other packages."""
    head, _, rest = module.partition(".")
    if head != "chainops":
        return None
    room = rest.partition(".")[0]
    return room if room in FLOOR_OF else ""


def wrong_imports(room: str, tree: ast.Module) -> Iterator[str]:
    """Imports that a module in `room` may not have."""
    floor = FLOOR_OF.get(room, SURFACE)
    for line, module in imports_of(tree):
        target = room_of(module)
        if target is None or target == room or (room, target) in ASIDE:
            continue
        if target == "testing":
            if room != "cli":
                yield f"line {line}: {module}: test doubles are for tests and the demo"
        elif FLOOR_OF.get(target, SURFACE) >= floor:
            yield f"line {line}: {module}: not below {room or 'the surface'}"


def test_every_room_is_in_the_house():
    rooms = {path.relative_to(PACKAGE).parts[0] for path in MODULES if path.parent != PACKAGE}
    assert rooms <= set(FLOOR_OF)
    assert [path.name for path in MODULES if path.parent == PACKAGE] == ["__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_only(path):
    room = "" if path.parent == PACKAGE else path.relative_to(PACKAGE).parts[0]
    assert list(wrong_imports(room, ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    ("room", "code", "is_wrong"),
    [
        ("cache", "from chainops.core.steps import Do", False),
        ("cache", "from chainops.cache.records import Entry", False),
        ("cache", "from chainops.memory.records import Turn", True),
        ("cache", "def f():\n    import chainops.spec.chain", True),
        ("cache", "from chainops import Answer", True),
        ("cache", "require('chainops.spec.chain', extra='x')", True),
        ("text", "from chainops.models.embeddings import embed", True),
        ("stores", "from chainops.models.embeddings import embed", True),
        ("spec", "from chainops import cache", False),
        ("spec", "from chainops.testing.listening import capture_events", True),
        ("cli", "from chainops.testing.servers import postgres_server", False),
        ("serve", "from chainops.evals import run", True),
        ("", "from chainops.spec.chain import load", False),
        ("", "from chainops.cli.app import main", True),
    ],
)
def test_the_rule_itself_tells_right_from_wrong(room, code, is_wrong):
    assert bool(list(wrong_imports(room, ast.parse(code)))) is is_wrong


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=name_of)
def test_core_stands_on_langchain_core_and_pydantic_alone(path):
    allowed = {"chainops", "langchain_core", "pydantic", *sys.stdlib_module_names}
    roots = {module.partition(".")[0] for _, module in imports_of(ast.parse(path.read_text()))}
    assert roots <= allowed


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_are_absolute(path):
    tree = ast.parse(path.read_text())
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level] == []


@pytest.mark.parametrize("path", [path for path in MODULES if path.read_text().strip()], ids=name_of)
def test_every_module_says_what_it_is(path):
    if not path.name.startswith("_") or path.name == "__init__.py":
        assert ast.get_docstring(ast.parse(path.read_text())), "a module begins with one line that says what it is"


def loaded_after(statement: str) -> set[str]:
    code = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_importing_chainops_loads_nothing_heavy():
    # What langchain-core itself loads is not ours to choose.
    assert loaded_after("import chainops") & HEAVY <= loaded_after("import langchain_core.runnables") & HEAVY


def test_the_mlflow_folder_cannot_shadow_the_package():
    found = [*ROOT.glob("mlflow/**/*.py"), *ROOT.glob("mlflow/**/*.pyi")]
    assert found == []
