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
    return run("01_first_chain.ipynb", tmp_path_factory, times=2)


@pytest.fixture(scope="module")
def ran_cache(tmp_path_factory):
    """The second notebook, executed."""
    return run("02_cache.ipynb", tmp_path_factory, times=1)[0]


@pytest.fixture(scope="module")
def ran_resilience(tmp_path_factory):
    """The third notebook, executed."""
    return run("03_resilience.ipynb", tmp_path_factory, times=1)[0]


def run(name: str, tmp_path_factory: pytest.TempPathFactory, *, times: int) -> list[Any]:
    """A notebook in a folder of its own, as nobody in particular would run it."""
    place = tmp_path_factory.mktemp("notebooks")
    shutil.copy(FOLDER / name, place)
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("CHAINOPS_HOME", "CHAINOPS_MODEL", "CHAINOPS_TRACES", "MLFLOW_TRACKING_URI"):
            patch.delenv(variable, raising=False)
        patch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        return [execute(place / name) for _ in range(times)]


def execute(path: Path) -> Any:
    """Raises at the first cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": path.parent}}
    return NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources=place, coalesce_streams=True
    ).execute()


def test_every_notebook_is_executed_here():
    assert [path.name for path in NOTEBOOKS] == ["01_first_chain.ipynb", "02_cache.ipynb", "03_resilience.ipynb"]


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


def test_the_cache_serves_repeats_at_once_and_similar_questions_only_after_it_has_learned(ran_cache):
    told = texts(ran_cache)
    assert "cached  by cache (exact)     How long is the warranty for the X200?" in told
    assert "ok      by extractive        How long does the warranty for the X200 last?" in told
    would, wrong = map(int, re.search(r"would have served (\d+), (\d+) of them with another answer", told).groups())
    assert would > 5
    assert wrong <= 0.02 * would
    before, after = map(int, re.search(r"entries about it: (\d+), then (\d+)", told).groups())
    assert after < before
    assert "not yet certified" in told


def test_the_replay_shows_thresholds_that_are_wrong_and_a_bound_that_is_not(ran_cache):
    rows = re.findall(
        r"^(threshold|max_error_rate) ([\d.]+) .* ([\d.]+)% +[\d.]+% +\d+$", texts(ran_cache), re.MULTILINE
    )
    errors = {(rule, float(value)): float(error) / 100 for rule, value, error in rows}
    assert errors["threshold", 0.8] > 0.1
    assert errors["max_error_rate", 0.02] <= 0.02
    pictures = [output for output in outputs(ran_cache) if "image/png" in output.get("data", {})]
    assert len(pictures) == 1


def test_the_cache_notebook_ends_with_the_browser_and_its_summary(ran_cache):
    last = ran_cache.cells[-1].outputs[-1].data
    assert "application/vnd.jupyter.widget-view+json" in last
    assert "Cache of shop-help" in last["text/html"]
    assert "var(--" not in last["text/html"]


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


def test_the_resilience_notebook_answers_every_question_of_the_outage_and_ends_none_unmarked(ran_resilience):
    rows = {
        name: list(map(int, numbers.split()))
        for name, numbers in re.findall(
            r"^(LangChain|chainops|chainops, on_cut: continue) +((?: *\d+){6})$", texts(ran_resilience), re.MULTILINE
        )
    }
    for name in ("chainops", "chainops, on_cut: continue"):
        whole, errors, marked, unmarked, *_ = rows[name]
        assert (whole + marked, errors, unmarked) == (300, 0, 0), name
    assert rows["chainops, on_cut: continue"][0] == 300
    assert rows["LangChain"][3] > 5
    assert rows["chainops"][4] < 0.6 * rows["LangChain"][4]


def test_the_resilience_notebook_finds_each_call_once_in_all_its_books(ran_resilience):
    told = texts(ran_resilience)
    for what in ("made", "answered"):
        by_reports, by_servers = re.search(
            rf"calls {what} +by the reports: (\d+) +by the servers: (\d+)", told
        ).groups()
        assert by_reports == by_servers
    cost = re.search(r"^cost +by the reports: \$([\d.]+)$", told, re.MULTILINE)[1]
    assert float(cost) == pytest.approx(float(re.search(r"^all .*\$([\d.]+)$", told, re.MULTILINE)[1]), abs=2e-6)


def test_the_resilience_notebook_tells_its_story(ran_resilience):
    told = texts(ran_resilience)
    for words in (
        "truncated: small broke off: connection cut",
        "crossed | the Alps",
        "crossed ⟲ The parcel",
        "'Answer': 24, 'Overloaded': 16",
        "degraded by a fixed sentence what is left of the day's budget would not do for this call",
        "asked again, on the same side: True",
        "killed: -9  answers written: False",
        "200 answers to 200 rows",
    ):
        assert words in told, words
    assert re.search(r"rows +200: 200 ok", told)
    assert 200 <= int(re.search(r"with (\d+) calls", told)[1]) <= 208
    assert len([output for output in outputs(ran_resilience) if "image/png" in output.get("data", {})]) == 2
