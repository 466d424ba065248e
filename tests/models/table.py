"""Loads every model that `make.py` had saved, and writes docs/models.md.

With a folder as its argument it writes nothing, and tells how far each is from what its saver
predicted: `{"tf2.5 dense.h5": 1e-08}`, or why it cannot be loaded.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from orchestrator.grades import grading
from orchestrator.screen.printable import one_line

LIMIT_BYTES = 10**7
HERE = Path(__file__).parent
TARGET = HERE.parent.parent / "docs" / "models.md"

HEAD = """\
# Which model files are graded

Made by `make models`: real files of each version of TensorFlow, loaded by the grader. `same` is a
prediction that differs by less than 0.00001 from that of the version that saved the file, a number
is the largest difference, and `-` stands where that version does not save such a file.
Files of Keras 2 (TensorFlow 2.15 and older) are graded by Keras 3, too: their configuration is
rewritten in a copy, their weights are not touched.

"""
WHAT = {
    "dense": "dense, batch and layer normalisation, own loss and metric",
    "conv": "convolutions, transposed, pooling, augmentation, rescaling",
    "separable": "separable and depthwise convolutions",
    "series": "Conv1D, SimpleRNN, GRU, TimeDistributed, Bidirectional(GRU), stacked cells",
    "text": "Embedding, masking, LSTM, Bidirectional(LSTM)",
    "normalised": "Normalization, adapted",
    "branches": "functional, with an inner model of two inputs, shared layers",
    "heads": "MultiHeadAttention, Attention",
    "mixed": "mixed precision (float16)",
    "residual": "an inner model as a layer, partly frozen",
    "transfer": "an inner model called with training=False, twice",
    "two_inputs": "two inputs",
    "words": "TextVectorization",
    "raw_operation": "x / 255 in a functional model",
    "lambda_layer": "Lambda layer",
    "own_layer": "layer class of one's own",
    "own_model": "subclass of Model",
}
# What is not graded, and what its verdict says of it; by case, or by file.
REFUSED = {
    "raw_operation": "Rescaling",
    "lambda_layer": "is a Lambda layer",
    "own_layer": "OwnLayer",
    "own_model": "OwnModel",
    # Keras 3 itself cannot load these two again: it should be told to save a .keras file.
    "tf2.21 heads.h5": "Attention",
    "tf2.21 words.h5": "Table not initialized",
}


def try_all(folder: Path) -> dict[str, float | str]:
    """The largest difference for each file, or why there is none."""
    import numpy as np

    found: dict[str, float | str] = {}
    for archive in sorted(HERE.glob("tf*.zip"), key=lambda path: int(path.stem.split(".")[1])):
        place = folder / archive.stem
        with zipfile.ZipFile(archive) as file:
            file.extractall(place)
        expected = np.load(place / "expected.npz")
        for path in sorted(place.glob("*.h5")) + sorted(place.glob("*.keras")):
            name = f"{archive.stem} {path.name}"
            try:
                found[name] = _difference(path, expected)
            except grading.Invalid as fault:
                found[name] = str(fault)
    return found


def _difference(path: Path, expected: Any) -> float:  # noqa: ANN401  # numpy's open archive
    import numpy as np
    import tensorflow as tf

    case = path.stem
    model = grading.load(path, LIMIT_BYTES, is_legacy=grading.check(path, LIMIT_BYTES))
    inputs = [tf.constant(expected[key]) for key in (f"x-{case}", f"x-{case}-1") if key in expected]
    with grading._blaming_the_model("predict"):
        found = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return float(np.abs(np.asarray(found, "float64") - expected[f"y-{case}"]).max())


def document(found: dict[str, float | str]) -> str:
    return f"{HEAD}{_table(found)}\n"


def _table(found: dict[str, float | str]) -> str:
    columns = sorted(
        {(name.split()[0], Path(name).suffix) for name in found},
        key=lambda column: (int(column[0].split(".")[1]), column[1]),
    )
    titles = [f"{version.replace('tf', 'TF ')} `{suffix}`" for version, suffix in columns]
    lines = [["model", *titles], ["---"] * (len(columns) + 1)]
    refused: dict[str, str] = {}
    for case, what in WHAT.items():
        cells = [what]
        for version, suffix in columns:
            result = found.get(f"{version} {case}{suffix}", "-")
            if isinstance(result, float):
                result = "same" if result < 1e-5 else f"{result:.0e}"
            elif result != "-":
                refused.setdefault(case, result)
                result = "refused"
            cells.append(result)
        lines.append(cells)
    reasons = [f"- {WHAT[case]}: {one_line(reason)[:120]}" for case, reason in refused.items()]
    rows = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join(
        [*rows, "", "What is refused, in the words of the first verdict:", "", *reasons]
    )


if __name__ == "__main__":
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    if len(sys.argv) > 1:
        print("\n" + json.dumps(try_all(Path(sys.argv[1]))))
    else:
        with tempfile.TemporaryDirectory() as name:
            TARGET.write_text(document(try_all(Path(name))), "utf-8")
