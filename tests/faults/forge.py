"""Model files made by hand, as their forger wants them: no Keras wrote any of them."""

from __future__ import annotations

import base64
import io
import json
import marshal
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

Json = dict[str, Any]
INPUT = {"batch_shape": [None, 4], "dtype": "float32", "sparse": False, "name": "in"}


def layer(class_name: object, config: object = None, **fields: object) -> Json:
    """As Keras 3 writes one."""
    named = {"name": "bad", **config} if isinstance(config, dict | None) and config else config
    whole = {"module": "keras.layers", "class_name": class_name, "registered_name": None}
    return {**whole, "config": {"name": "bad"} if named is None else named, **fields}


def function(module: object, name: object, registered: object = "function") -> Json:
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": registered,
    }


DENSE = layer("Dense", {"name": "dense", "units": 1, "activation": "linear"})


def sequential(*layers: object, **fields: object) -> Json:
    first = layer("InputLayer", INPUT)
    return layer(
        "Sequential",
        {"name": "m", "layers": [first, *layers]},
        module="keras",
        build_config={"input_shape": [None, 4]},
        **fields,
    )


def functional(*layers: Json, outputs: tuple[str, ...] = (), kwargs: object = None) -> Json:
    """Each layer is put upon the one before; each has to have a name of its own.

    Args:
        kwargs: given to each call of a layer.
    """
    chain = [layer("InputLayer", INPUT), *layers]
    nodes: list[Json] = []
    for position, one in enumerate(chain):
        before = chain[position - 1]["config"]["name"]
        tensor = {"shape": [None, 4], "dtype": "float32", "keras_history": [before, 0, 0]}
        argument = {"class_name": "__keras_tensor__", "config": tensor}
        inbound = [{"args": [argument], "kwargs": kwargs or {}}] if position else []
        nodes.append({**one, "name": one["config"]["name"], "inbound_nodes": inbound})
    ends = outputs or (chain[-1]["config"]["name"],)
    config = {
        "name": "m",
        "trainable": True,
        "layers": nodes,
        "input_layers": [["in", 0, 0]],
        "output_layers": [[end, 0, 0] for end in ends],
    }
    return layer("Functional", config, module="keras.src.models.functional")


def keras2(*layers: Json) -> Json:
    """As Keras 2 wrote a sequential model: classes have no modules."""
    first = {"batch_input_shape": [None, 4], "dtype": "float32", "sparse": False, "name": "in"}
    plain = [{"class_name": one["class_name"], "config": one["config"]} for one in layers]
    chain = [{"class_name": "InputLayer", "config": first}, *plain]
    return {"class_name": "Sequential", "config": {"name": "m", "layers": chain}}


def bytecode(source: str) -> str:
    """Python as a Lambda layer holds it: a function of one argument that runs `source` first."""
    code = compile(f"lambda x: (exec({source!r}, {{}}), x)[1]", "model", "eval").co_consts[0]
    return base64.b64encode(marshal.dumps(code)).decode()


def evil_lambda(source: str) -> Json:
    held = {"code": bytecode(source), "defaults": None, "closure": None}
    return layer("Lambda", {"function": {"class_name": "__lambda__", "config": held}})


def keras2_lambda(source: str) -> Json:
    config = {"function": [bytecode(source), None, None], "function_type": "lambda"}
    return layer("Lambda", {**config, "output_shape_type": "raw", "arguments": {}})


def h5(
    path: Path,
    config: object,
    change: Callable[[h5py.File], object] = lambda _: None,
    *,
    bias: float = 0,
    version: str = "3.15.1",
) -> None:
    """With the weights of one layer `dense`, of four inputs and one output."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
        file.attrs["keras_version"] = version
        file.attrs["backend"] = "tensorflow"
        weights = file.create_group("model_weights")
        names = ["dense/kernel:0", "dense/bias:0"]
        weights.attrs["layer_names"] = [b"dense"]
        group = weights.create_group("dense")
        group.attrs["weight_names"] = [name.encode() for name in names]
        group[names[0]], group[names[1]] = np.zeros((4, 1), "f4"), np.full(1, bias, "f4")
        change(file)


def weights(change: Callable[[h5py.File], object] = lambda _: None) -> bytes:
    """What a .keras file has its weights in."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        group = file.create_group("layers/dense/vars")
        group["0"], group["1"] = np.zeros((4, 1), "f4"), np.zeros(1, "f4")
        change(file)
    return buffer.getvalue()


def keras(path: Path, config: object, others: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """Args:
    others: members by name; they replace those that are usual.
    """
    members = {
        "config.json": config if isinstance(config, bytes) else json.dumps(config).encode(),
        "metadata.json": b'{"keras_version": "3.15.1"}',
        "model.weights.h5": weights(),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, **others}.items():
            archive.writestr(name, content)
