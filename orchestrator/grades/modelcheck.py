"""Judges a model file before any loader sees it. The judges never raise: "" means no fault.

What a file may name is an allow-list, because Keras looks up classes and functions by the names
in the file: published attacks called functions of other modules (CVE-2025-1550), functions of
Keras itself (CVE-2025-8747), Lambda layers in .h5 files (CVE-2024-3660, CVE-2025-9905), and made
layers read local files (CVE-2025-12058).
"""

from __future__ import annotations

import json
import re
import stat
import zipfile
import zlib
from collections.abc import Container, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from orchestrator.screen.printable import one_line

File = Any
"""An open `h5py.File`, or a dataset in one; h5py has no types, and is not imported here."""

# The longest seen, of a network with 300 layers, has 0.2 MB.
CONFIG_BYTES = 16 * 1024 * 1024
ARCHIVE_MEMBERS = 10_000

MODULES = frozenset(
    f"{root}{part}"
    for root in ("keras", "tensorflow.keras")
    for part in (
        "",
        ".activations",
        ".constraints",
        ".dtype_policies",
        ".initializers",
        ".layers",
        ".losses",
        ".metrics",
        ".mixed_precision",
        ".models",
        ".optimizers",
        ".optimizers.schedules",
        ".regularizers",
    )
)
# Keras writes functional models and operations such as x / 255 with their private modules; the
# two `engine` ones are Keras 2's.
PRIVATE_CLASS = re.compile(
    r"keras\.(src\.models|src\.ops|src\.layers|engine|src\.engine)(\.[a-z0-9_]+)*\.[A-Z]\w*"
)
# Values that are data, not classes. `__lambda__` and `__typespec__` are left out on purpose.
DATA = frozenset(
    f"__{name}__"
    for name in ("bytes", "ellipsis", "keras_tensor", "numpy", "slice", "tensor", "tuple")
) | {"TensorShape"}
FORBIDDEN = {
    "Lambda": "is a Lambda layer, which holds Python code: use a layer of Keras instead",
    "__lambda__": "holds a Python lambda: use a function of Keras, by its name",
    "TFSMLayer": "loads a second model from another file",
    "TorchModuleWrapper": "holds pickled Python code",
    "JaxLayer": "holds Python code",
    "FlaxLayer": "holds Python code",
    "TFOpLambda": "is a raw TensorFlow operation of Keras 2",
    "SlicingOpLambda": "is a raw TensorFlow operation of Keras 2",
}
# What does the same as an operation whose name holds the word; the first that fits.
INSTEAD = (
    (("truediv", "multiply", "subtract", "cast", "__operators__.add"), "keras.layers.Rescaling"),
    (("reshape", "expand_dims", "squeeze"), "keras.layers.Reshape"),
    (("concat",), "keras.layers.Concatenate"),
    (("reduce_mean",), "a GlobalAveragePooling layer"),
    (("reduce_max",), "a GlobalMaxPooling layer"),
    (("image.resize",), "keras.layers.Resizing"),
    (("one_hot",), "keras.layers.CategoryEncoding"),
    (("nn.", "tanh", "sigmoid"), "keras.layers.Activation"),
    (("add",), "keras.layers.Add"),
)

# What `zipfile` raises of a damaged file; RuntimeError also of a compression that it does not know.
_DAMAGE = (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)


def suffix(head: bytes) -> str:
    """What the first bytes say a file is: `.h5`, `.keras`, or "" for neither."""
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return ".h5"
    return ".keras" if head.startswith(b"PK\x03\x04") else ""


def config_fault(config: bytes, known: Container[str]) -> str:
    """Why a model of this configuration must not be loaded.

    Args:
        config: the JSON text of the file.
        known: names of the classes and functions of Keras that a file may ask for.
    """
    if len(config) > CONFIG_BYTES:
        return f"its configuration has {len(config)} bytes, more than {CONFIG_BYTES}"
    try:
        root = json.loads(config.decode())
    except (ValueError, RecursionError) as error:
        return one_line(f"its configuration is not JSON: {error}")
    if not isinstance(root, dict) or "class_name" not in root or "config" not in root:
        return "its configuration is not that of a Keras model"
    # Loading with compile=False drops the outermost one: a loss of one's own does no harm there.
    root.pop("compile_config", None)
    return next((fault for name, node in _nodes(root) if (fault := _fault(name, node, known))), "")


def _nodes(root: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in a configuration, with the name of the layer it belongs to.

    Iterative, because a file may nest deeper than Python can recurse.
    """
    pending: list[tuple[str, object]] = [("", root)]
    while pending:
        owner, value = pending.pop()
        if isinstance(value, dict):
            inner = value.get("config")
            name = inner.get("name") if isinstance(inner, dict) else None
            owner = name if isinstance(name, str) and name else owner
            yield owner, value
            pending.extend((owner, child) for child in value.values())
        elif isinstance(value, list):
            pending.extend((owner, child) for child in value)


def _fault(owner: str, node: dict[str, Any], known: Container[str]) -> str:
    layer = f"layer {one_line(owner, 80)!r}" if owner else "the model"
    for key in ("vocabulary", "idf_weights"):
        if isinstance(node.get(key), str):
            return f"{layer} reads its {key} from a file, {one_line(node[key], 80)!r}"
    if "class_name" not in node and "module" not in node:
        return ""

    name, module = node.get("class_name"), node.get("module")
    registered = node.get("registered_name")
    if not isinstance(name, str) or not isinstance(module, str | None):
        return f"{layer} has a class or module that is not a name"
    if name in FORBIDDEN:
        return f"{layer} {FORBIDDEN[name]}" + (
            f" ({name}): use {_instead(owner)} instead" if name.endswith("OpLambda") else ""
        )
    if name in DATA and module is None:
        return ""
    if name == "function" and module in (None, "builtins", "keras.activations"):
        function = node.get("config")
        if isinstance(function, str) and function in known:
            return ""
        return f"{layer} uses the custom function {one_line(str(function), 80)!r}"
    if registered is not None and registered != name:
        return (
            f"{layer} is of the custom class {one_line(str(registered), 80)!r}: "
            "build the model of keras.layers, with keras.Sequential or keras.Model(inputs, outputs)"
        )
    if module is not None and PRIVATE_CLASS.fullmatch(f"{module}.{name}"):
        return ""
    if module is not None and module not in MODULES:
        return f"{layer} comes from the module {one_line(module, 80)!r}, not from Keras"
    if name not in known:
        return (
            f"{layer} is of class {one_line(name, 80)!r}, which is no layer of Keras: custom "
            "classes, and operations such as x / 255 in a .h5 file, cannot be graded; build the "
            "model of keras.layers, with Rescaling for x / 255"
        )
    return ""


def _instead(operation: str) -> str:
    fitting = (layer for words, layer in INSTEAD if any(word in operation for word in words))
    return next(fitting, "a layer of Keras")


def archive_fault(path: Path | IO[bytes], unpacked_bytes: int) -> str:
    """Why a .keras file, which is a zip, must not be unpacked.

    Args:
        unpacked_bytes: how large all members may be together. Their sizes as declared can be
            trusted, for `zipfile` reads no member further than that.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            fault = _members_fault(members, unpacked_bytes)
            if not fault:
                archive.read("config.json")
    except _DAMAGE as error:
        return one_line(f"it is damaged or cut short: {error}")
    return fault


def saved_by(archive: zipfile.ZipFile) -> str:
    """The version of Keras that a .keras file says it was saved by; "" when it says none."""
    try:
        metadata = json.loads(archive.read("metadata.json"))
    except (KeyError, *_DAMAGE):
        return ""
    version = metadata.get("keras_version", "") if isinstance(metadata, dict) else ""
    return one_line(str(version), 40)


def _members_fault(members: list[zipfile.ZipInfo], unpacked_bytes: int) -> str:
    names = [member.filename for member in members]
    if len(names) > ARCHIVE_MEMBERS:
        return f"it holds {len(names)} files, more than {ARCHIVE_MEMBERS}"
    if len(set(names)) < len(names):
        return "it holds two files of one name"
    if "config.json" not in names:
        return "it holds no config.json: it is a zip, but not a Keras model"
    for member in members:
        shown = repr(one_line(member.filename, 80))
        place = PurePosixPath(member.filename)
        if place.is_absolute() or ".." in place.parts or set("\\:") & set(member.filename):
            return f"it holds {shown}, a name outside of the file"
        if stat.S_ISLNK(member.external_attr >> 16):
            return f"it holds the link {shown}"
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # LZMA may ask for gigabytes before its first byte.
            return f"it holds {shown}, packed in a way that Keras does not use"
        if member.flag_bits & 1:
            return f"it holds the encrypted file {shown}"
        if not (
            member.filename in ("config.json", "metadata.json")
            or place.parts[:1] == ("assets",)
            or place.suffix == ".h5"
        ):
            return f"it holds {shown}, which Keras does not write"
    unpacked = sum(member.file_size for member in members)
    if unpacked > unpacked_bytes:
        return f"it unpacks to {unpacked} bytes, more than {unpacked_bytes}"
    config = next(member for member in members if member.filename == "config.json")
    if config.file_size > CONFIG_BYTES:
        return f"its configuration has {config.file_size} bytes, more than {CONFIG_BYTES}"
    return ""


def hdf5_fault(file: File, unpacked_bytes: int) -> str:
    """Why an open `h5py.File` must not be loaded: it reaches out of itself, or unpacks too large.

    Soft links stay inside the file, but only lead out through others; Keras writes neither.
    """

    def link_fault(name: str, link: object) -> str | None:
        if type(link).__name__ == "HardLink":
            return None
        target = getattr(link, "filename", None) or getattr(link, "path", "")
        return f"{one_line(name, 80)!r} is a link to {one_line(str(target), 80)!r}"

    unpacked = 0

    def dataset_fault(name: str, item: File) -> str | None:
        nonlocal unpacked
        if not hasattr(item, "nbytes"):
            return None  # a group, or a named type
        shown = repr(one_line(name, 80))
        if item.external:
            return f"{shown} keeps its values in another file, {one_line(str(item.external), 80)}"
        if item.is_virtual:
            return f"{shown} is made of other files"
        unpacked += item.nbytes
        if unpacked > unpacked_bytes:
            return f"its weights unpack to more than {unpacked_bytes} bytes"
        return None

    try:
        return file.visititems_links(link_fault) or file.visititems(dataset_fault) or ""
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        return one_line(f"it is damaged or cut short: {error}")
