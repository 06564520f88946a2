"""Every notebook runs from a fresh folder, tells its story, and was saved with what it showed."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PLACES = re.compile(r"(?<![\w.:/])/(?:work|tmp|root|home|Users|private|var)/|[A-Z]:\\\\")


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def texts(notebook: Any) -> str:
    """What a reader sees, as text: printed words, and the plain form of what draws itself."""
    return "\n".join(each.get("text") or each.get("data", {}).get("text/plain", "") for each in outputs(notebook))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The first notebook, executed twice in the same folder of its own: what it showed each time."""
    place = tmp_path_factory.mktemp("notebooks")
    shutil.copy(FOLDER / "01_first_chain.ipynb", place)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CHAINOPS_HOME", "CHAINOPS_MODEL", "CHAINOPS_TRACES", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        patch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        return [run(place / "01_first_chain.ipynb") for _ in range(2)]


def run(path: Path) -> Any:
    """Raises at the first cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": path.parent}}
    return NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=place, coalesce_streams=True
    ).execute()


def test_every_notebook_is_executed_here():
    assert [path.name for path in NOTEBOOKS] == ["01_first_chain.ipynb"]


@pytest.mark.parametrize("time", [0, 1], ids=["the first time", "again"])
def test_the_first_chain_tells_its_story_each_time_it_runs(ran, time):
    told = texts(ran[time])
    for words in (
        "79 documents",
        "└ cache: threshold 0.87, ttl 24h",
        "yield (docs/yield.md, characters",
        "as quoted: True",
        "cached  by cache (exact)",
        "cached  by cache (semantic)",
        "acme    ok\nacme    cached\nglobex  ok",
        "status: degraded\n  answered by local because main",
        "I don't know",
        "line 9, column 13: pipeline.0.cache.treshold",
        "did you mean 'threshold'?",
        "spans  What does the nonlocal statement do?",
    ):
        assert words in told, words
    assert re.findall(r"^(\w+) +4 answers", told, re.MULTILINE) == ["ok", "cached", "degraded"]


def test_the_first_chain_ends_with_a_picture(ran):
    last = ran[0].cells[-1].outputs[-1]
    assert base64.b64decode(last.data["image/png"]).startswith(b"\x89PNG")


def test_the_first_chain_draws_its_onion_its_progress_and_its_answers(ran):
    drawn = [html for output in outputs(ran[0]) if (html := output.get("data", {}).get("text/html"))]
    assert len(drawn) >= 5
    assert any("79 of 79" in html for html in drawn)
    assert not any("<script" in html or "var(--" in html for html in drawn)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_saved_with_its_outputs_and_nothing_of_the_machine(path):
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert code[-1].outputs
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    assert not PLACES.findall(text)
    assert len(text) < 500_000
    assert "widgets" not in notebook.metadata
