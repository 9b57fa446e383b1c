"""CELLxGENE itself opens an atlas: its server is asked for the schema, the map and a column, as its page does.

``IMMUNOMOD_CELLXGENE`` names the program, or ``make env-cellxgene`` has made an environment of its own for it.
"""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from immunomod.atlas.build import build_atlas
from immunomod.atlas.settings import AtlasSettings

_PATIENCE_S = 120


@pytest.fixture
def program(repository):
    own = repository / ".venv-cellxgene" / "bin" / "cellxgene"
    named = Path(os.environ.get("IMMUNOMOD_CELLXGENE", own))
    if not named.exists():
        pytest.skip("CELLxGENE is not installed (make env-cellxgene)")
    return str(named)


@pytest.fixture
def ask(program, write_sample, markers_folder, tmp_path):
    classes = ["MSC"] * 60 + ["CD4_T"] * 40 + ["B"] * 30 + ["CD14_monocyte"] * 30
    paths = [write_sample(tmp_path, name, classes, seed) for seed, name in enumerate(("one", "two"))]
    built = build_atlas(paths, markers_folder, AtlasSettings(n_variable_genes=150, n_components=10), seed=1)
    built.write(tmp_path / "atlas.h5ad", tmp_path / "atlas")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [program, "launch", str(tmp_path / "atlas.h5ad"), "--host", "127.0.0.1", "--port", port]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def request(path):
        asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept": "*/*"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.read()

    try:
        for _ in range(_PATIENCE_S):
            try:
                request("/api/v0.2/config")
                break
            except urllib.error.URLError:
                assert server.poll() is None, "cellxgene stopped"
                time.sleep(1)
        yield request
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.mark.slow
def test_cellxgene_serves_an_atlas(ask):
    schema = json.loads(ask("/api/v0.2/schema"))["schema"]
    columns = {column["name"]: column for column in schema["annotations"]["obs"]["columns"]}
    assert {"MSC", "B"} <= set(columns["cell_class"]["categories"])
    assert {"CL:0000134", "CL:0000236"} <= set(columns["cell_type_ontology_term_id"]["categories"])
    assert "umap" in {layout["name"] for layout in schema["layout"]["obs"]}
    n_cells = schema["dataframe"]["nObs"]
    assert len(ask("/api/v0.2/layout/obs?layout-name=umap")) > 2 * 4 * n_cells  # two float32 a cell
    assert ask("/api/v0.2/annotations/obs?annotation-name=cell_class")
    assert b"cellxgene" in ask("/").lower()
