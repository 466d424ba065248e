"""A run as a notebook: the cells that a person reads, and the bundle they unpack. No I/O."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from orchestrator.elsewhere.bundle import Bundle
from remote.elsewhere import OWN, TREE
from remote.runfolder import RunRequest

# So many characters in a line; editors are slow with a line of megabytes.
_LINE = 1000

_WORDS = """\
# {job}: one training run, away from home

This notebook was made by `train export {job} --notebook`. It holds the code and the data of the
run `{run_id}` and needs nothing else.

1. Choose a machine with a GPU (Colab: *Runtime > Change runtime type*; Kaggle: *Settings >
   Accelerator*).
2. Run all cells (Colab: *Runtime > Run all*; Kaggle: *Run All*, or *Save Version*, which trains
   with the browser closed).
3. Take `result-{run_id}.zip` home: Colab offers it for download, Kaggle has it under *Output*.
   Then, on your laptop, in the workspace:

       train import result-{run_id}.zip

What is executed, in the unpacked folder: `{command}`

It is one run. Executed twice it gives two results, of which your laptop takes the first; for
another run export another notebook.
"""

_SETTINGS = """\
# What the script is given. You may change the values; your laptop is told of them.
ENVIRONMENT = {environment}
"""

_BUNDLE = '''\
#@title The code and the data (packed; nothing to read here)
BUNDLE = """
{text}
"""
'''

_UNPACK = """\
# Unpack it, once it is known to be whole.
import base64, hashlib, io, os, sys, tarfile, tempfile
from pathlib import Path

DIGEST = "{digest}"
packed = base64.b64decode(BUNDLE)
if hashlib.sha256(packed).hexdigest() != DIGEST:
    raise RuntimeError("this notebook was cut or changed on its way: export it again")
FOLDER = Path(tempfile.mkdtemp(prefix="{job}-"))
with tarfile.open(fileobj=io.BytesIO(packed), mode="r:xz") as bundle:
    bundle.extractall(FOLDER, **({{"filter": "data"}} if hasattr(tarfile, "data_filter") else {{}}))
sys.path.insert(0, str(FOLDER / "{own}"))
print(f"unpacked to {{FOLDER}}")
"""

_INSTALL = """\
# What the job asks to be installed.
import subprocess

subprocess.run(
    [sys.executable, "-m", "pip", "install", "-r", str(FOLDER / "{tree}" / {requirements!r})],
    check=True,
)
"""

_TRAIN = """\
# Train. The log is shown here and goes into the result.
from remote.notebook import pack, train

trained = train(FOLDER, ENVIRONMENT)
"""

_PACK = """\
# The result: log, model, versions, digests. Colab asks where to save it; else it is in this folder.
result = pack(FOLDER, ENVIRONMENT, trained, DIGEST, "{key}")
try:
    from google.colab import files
except ImportError:
    print(f"the result is {{result}}")
else:
    files.download(str(result))
"""

Json = dict[str, Any]


def make_notebook(
    request: RunRequest, bundle: Bundle, key: str, environment: Mapping[str, str]
) -> Json:
    """The notebook as JSON of nbformat 4.5.

    Args:
        key: seals the result.
        environment: what the script is given: PARAM_* and SEED.

    Source: nbformat.readthedocs.io, "The Notebook file format".
    """
    text = base64.b64encode(bundle.packed).decode("ascii")
    lines = "\n".join(text[at : at + _LINE] for at in range(0, len(text), _LINE))
    words = _WORDS.format(job=request.job, run_id=request.run_id, command=request.command)
    hidden = {"cellView": "form", "jupyter": {"source_hidden": True}}
    install = _INSTALL.format(tree=TREE, requirements=request.requirements)
    cells = [
        _cell("markdown", words),
        _cell("code", _SETTINGS.format(environment=_dict_text(environment))),
        _cell("code", _BUNDLE.format(text=lines), hidden),
        _cell("code", _UNPACK.format(digest=bundle.digest, job=request.job, own=OWN)),
        *([_cell("code", install)] if request.requirements else []),
        _cell("code", _TRAIN),
        _cell("code", _PACK.format(key=key)),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    return {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            **({"accelerator": "GPU"} if request.gpus else {}),
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _dict_text(values: Mapping[str, str]) -> str:
    lines = "".join(f"    {name!r}: {value!r},\n" for name, value in sorted(values.items()))
    return f"{{\n{lines}}}" if lines else "{}"


def _cell(kind: str, source: str, metadata: Json | None = None) -> Json:
    cell: Json = {"cell_type": kind, "metadata": metadata or {}, "source": source.rstrip("\n")}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return cell
