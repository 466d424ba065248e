"""Rewrites what Keras 2 wrote of a model so that Keras 3 reads it. Weights are left as they are.

Keras 3 reads the weights of Keras 2 in their order, but not all of its configurations. What is
rewritten here was found by loading what TensorFlow 2.5 to 2.15 saved; docs/models.md has the table.
A key is only left out where that changes no prediction: with another value than it has here, it
stays, and Keras says that it does not know it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

Json = Any
"""What `json.loads` gives."""

# What a file of Keras 2 may name that a rewritten one does not.
NAMES = frozenset({"Policy"})

# What only training reads: the weights are loaded.
_OF_TRAINING = ("_constraint", "_initializer", "_regularizer")
# Keys that Keras 3 dropped, with the values that do nothing; None where none does anything.
_DROPPED: dict[str, tuple[object, ...] | None] = {
    # A layer's first shape is in the input before it, too, and other shapes follow from there.
    "batch_input_shape": None,
    "key_shape": None,
    "query_shape": None,
    "value_shape": None,
    "causal": (False,),
    "groups": (1,),
    "implementation": None,
    "input_length": None,
    "noise_shape": (None,),
    "time_major": (False,),
}
# Where a layer holds others.
_INNER = ("layers", "layer", "backward_layer", "forward_layer", "cell", "cells")
# Where Keras 3 finds the classes that are not in `keras.layers`.
_MODULES = {"Functional": "keras.src.models.functional", "Sequential": "keras"}


def modernise(config: Json) -> Json:
    """The configuration of a Keras 2 model as Keras 3 would have it; the argument is not changed.

    Raises:
        RecursionError: it is nested too deep.
    """
    if isinstance(config, list):
        return [modernise(part) for part in config]
    if not isinstance(config, dict):
        return config
    new = {key: modernise(value) for key, value in config.items()}
    inner = new.get("config")
    if "class_name" in new and isinstance(inner, dict):
        new["config"] = _layer(str(new["class_name"]), inner)
        if new["class_name"] in _MODULES:
            new["module"] = _MODULES[new["class_name"]]
        else:
            # A layer's shapes follow from its place.
            new.pop("build_config", None)
    return new


def _layer(class_name: str, config: dict[str, Json]) -> dict[str, Json]:
    new = {key: value for key, value in config.items() if not _is_dropped(key, value)}
    if class_name == "InputLayer" and "batch_input_shape" in config:
        new["batch_shape"] = config["batch_input_shape"]
    if class_name.startswith("SpatialDropout"):
        new.pop("trainable", None)
    dtype = new.get("dtype")
    if isinstance(dtype, dict) and isinstance(dtype.get("config"), dict):
        new["dtype"] = dtype["config"].get("name")
    axis = new.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        new["axis"] = axis[0]
    for key in _INNER:
        if key in new:
            new[key] = _with_module(new[key])
    if "layers" in new and "output_layers" in new:
        _connect(new)
        for key in ("input_layers", "output_layers"):
            new[key] = _alone(new[key])
    return new


def _is_dropped(key: str, value: Json) -> bool:
    if key.endswith(_OF_TRAINING):
        return True
    harmless = _DROPPED.get(key, ())
    return harmless is None or value in harmless


def _with_module(layer: Json) -> Json:
    """Without a module a layer is read by older rules, which take the word `dot` for a layer."""
    if isinstance(layer, list):
        return [_with_module(part) for part in layer]
    if isinstance(layer, dict) and "class_name" in layer:
        module = _MODULES.get(layer["class_name"], "keras.layers")
        return {"module": module, "registered_name": None, **layer}
    return layer


def _alone(tensors: Json) -> Json:
    """Keras 2 wrote a list also of a single input or output."""
    return tensors[0] if isinstance(tensors, list) and len(tensors) == 1 else tensors


def _connect(config: dict[str, Json]) -> None:
    """Write the calls of a functional model's layers as Keras 3 does.

    It overlooks tensors among the keyword arguments as Keras 2 wrote them, and counts the calls of
    a model within another from 0, where Keras 2 mostly counted them from 1.
    """
    layers = {layer["name"]: layer for layer in config["layers"]}
    calls = {name: len(layer["inbound_nodes"]) for name, layer in layers.items()}
    nodes = [layer["inbound_nodes"] for layer in layers.values()]
    named = _tensors([nodes, config["output_layers"]], calls)
    from_1 = {name for name, number, *_ in named if 0 < calls[name] <= number}

    def tensor(value: Json) -> Json:
        name, number, output = value[:3]
        return [name, number - (name in from_1), output]

    def rewrite(value: Json) -> Json:
        if _is_tensor(value, calls):
            # Keras makes the tensor anew from where it comes from.
            made = {"shape": [], "dtype": "float32", "keras_history": tensor(value)}
            return {"class_name": "__keras_tensor__", "config": made}
        if isinstance(value, dict):
            return {key: rewrite(part) for key, part in value.items()}
        return [rewrite(part) for part in value] if isinstance(value, list) else value

    def call(node: Json) -> Json:
        args = [rewrite(value[:3]) for value in node]
        keywords = {key: part for value in node for key, part in dict(*value[3:]).items()}
        return {"args": [args] if len(args) > 1 else args, "kwargs": rewrite(keywords)}

    for layer in layers.values():
        layer["inbound_nodes"] = [call(node) for node in layer["inbound_nodes"]]
    # Keras 3 expects outputs of functional models, and only these, to be counted from 1.
    config["output_layers"] = [
        tensor(value) if layers[value[0]]["class_name"] == "Sequential" else value
        for value in config["output_layers"]
    ]


def _tensors(value: Json, layers: Container[str]) -> Iterator[list[Json]]:
    """Every `[layer, number of its call, number of its output]`, at any depth."""
    if _is_tensor(value, layers):
        yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part, layers)


def _is_tensor(value: Json, layers: Container[str]) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 3
        and isinstance(value[0], str)
        and value[0] in layers
        and type(value[1]) is type(value[2]) is int
    )
