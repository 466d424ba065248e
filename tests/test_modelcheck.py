"""Judging a model file before it is loaded: no TensorFlow."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.grades.modelcheck import archive_fault, config_fault, saved_by, suffix

KNOWN = frozenset({"Sequential", "Functional", "Dense", "GlorotUniform", "StringLookup", "relu"})
MB = 1000**2


def layer(class_name: object = "Dense", **fields: object) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": "layer_1"}, **fields}


def model(*layers: object, **fields: object) -> bytes:
    config = {"name": "m", "layers": list(layers)}
    return json.dumps({"class_name": "Sequential", "config": config, **fields}).encode()


@pytest.mark.parametrize(
    "config",
    [
        model(layer()),
        model(layer(module="keras.layers", registered_name=None)),
        model(layer(module="tensorflow.keras.layers")),
        model(
            layer("Functional", module="keras.src.models.functional", registered_name="Functional")
        ),
        model(layer("TrueDivide", module="keras.src.ops.numpy", registered_name="TrueDivide")),
        model({"class_name": "__keras_tensor__", "config": {"shape": [None, 4]}}),
        model({"class_name": "function", "module": "builtins", "config": "relu"}),
        model({"class_name": "StringLookup", "config": {"name": "s", "vocabulary": ["a", "b"]}}),
        model(layer(), compile_config={"loss": layer("MyLoss", module="my.losses")}),
    ],
)
def test_a_model_of_keras_layers_has_no_fault(config: bytes) -> None:
    assert config_fault(config, KNOWN) == ""


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (layer("Lambda", module="keras.layers"), "'layer_1' is a Lambda layer"),
        (layer("TFOpLambda"), "'layer_1' is a raw TensorFlow operation of Keras 2"),
        (layer("TFSMLayer", module="keras.layers"), "loads a second model"),
        (layer("Lambda", module="keras.src.layers.core.lambda_layer"), "is a Lambda layer"),
        (layer("MyLayer"), "class 'MyLayer', which is no layer of Keras"),
        (layer("MyLayer", module=None, registered_name="mine>MyLayer"), "custom class 'mine>MyL"),
        (layer("Dense", registered_name="mine>Dense"), "custom class 'mine>Dense'"),
        (layer("Dense", module="os"), "the module 'os'"),
        (layer("Dense", module="keras.utils"), "the module 'keras.utils'"),
        (layer("Dense", module="keras.layers.evil"), "the module 'keras.layers.evil'"),
        (layer("get_file", module="keras"), "'get_file', which is no layer"),
        (layer("get_file", module="keras.src.ops.numpy"), "the module 'keras.src.ops.numpy'"),
        (layer("Dense", module=["os"]), "not a name"),
        (layer(["Dense"]), "not a name"),
        ({"class_name": "__lambda__", "config": {"value": ""}}, "holds a Python lambda"),
        ({"class_name": "__typespec__", "spec_name": "x", "module": "os"}, "the module 'os'"),
        ({"class_name": "TypeSpec", "type_spec": "x"}, "'TypeSpec', which is no layer"),
        ({"class_name": "function", "module": "builtins", "config": "f"}, "custom function 'f'"),
        ({"class_name": "function", "module": "os", "config": "relu"}, "the module 'os'"),
        ({"config": {"name": "x"}, "module": "subprocess"}, "not a name"),
        (
            {"class_name": "StringLookup", "config": {"name": "s", "vocabulary": "/etc/passwd"}},
            "layer 's' reads its vocabulary from a file, '/etc/passwd'",
        ),
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 100])
def test_what_is_not_of_keras_is_named_however_deep_it_lies(
    bad: dict[str, Any], says: str, depth: int
) -> None:
    for _ in range(depth):
        bad = {"inner": [bad]}

    assert says in config_fault(model(layer(), bad), KNOWN)


def test_the_compile_config_of_an_inner_model_is_judged() -> None:
    inner = layer("Sequential", compile_config={"loss": layer("Loss", module="my.losses")})

    assert "'my.losses'" in config_fault(model(inner), KNOWN)


def test_a_layer_name_cannot_speak_to_the_terminal() -> None:
    bad = {"class_name": "Lambda", "config": {"name": "a\x1b[2J\nb" * 200}}

    fault = config_fault(model(bad), KNOWN)

    assert fault.isprintable()
    assert len(fault) < 300


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_judged(config: bytes) -> None:
    assert config_fault(config, KNOWN)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["class_name", "config", "module", "registered_name", "vocabulary", "name", "x"]
            ),
            inner,
        )
    ),
)


@given(json_values)
def test_any_json_is_judged(value: object) -> None:
    assert isinstance(config_fault(json.dumps(value).encode(), KNOWN), str)
    assert isinstance(config_fault(model(value), KNOWN), str)


def test_json_nested_too_deep_to_read_is_a_fault() -> None:
    assert "not JSON" in config_fault(b"[" * 200_000, KNOWN)


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


GOOD = {"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b"", "assets/a/b": b""}


def test_an_archive_as_keras_writes_it_has_no_fault(tmp_path: Path) -> None:
    assert archive_fault(archive(tmp_path / "a 'b\n.keras", GOOD), MB) == ""


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"../up": b""}, "a name outside"),
        ({"/etc/passwd": b""}, "a name outside"),
        ({"assets/../../up": b""}, "a name outside"),
        ({"assets/C:x": b""}, "a name outside"),
        ({"model.weights.npz": b""}, "which Keras does not write"),
        ({"evil.py": b""}, "which Keras does not write"),
    ],
)
def test_an_archive_with_a_strange_member_is_refused(
    tmp_path: Path, members: dict[str, bytes], says: str
) -> None:
    assert says in archive_fault(archive(tmp_path / "m.keras", GOOD | members), MB)


def test_an_archive_that_unpacks_too_large_is_refused(tmp_path: Path) -> None:
    bomb = GOOD | {"model.weights.h5": bytes(3 * MB)}
    path = archive(tmp_path / "m.keras", bomb, zipfile.ZIP_DEFLATED)

    assert path.stat().st_size < MB
    assert "unpacks to" in archive_fault(path, MB)


def test_an_archive_with_a_link_or_two_files_of_one_name_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = 0o120777 << 16
    path = archive(tmp_path / "m.keras", GOOD)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(link, "/etc/passwd")
    twice = archive(tmp_path / "twice.keras", GOOD)
    with zipfile.ZipFile(twice, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("config.json", "{}")

    assert "the link 'assets/link'" in archive_fault(path, MB)
    assert "two files of one name" in archive_fault(twice, MB)


def test_a_zip_that_is_no_model_says_so(tmp_path: Path) -> None:
    assert "no config.json" in archive_fault(archive(tmp_path / "m.keras", {"a": b""}), MB)


@pytest.mark.parametrize("member", ["config.json", "metadata.json"])
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_an_archive_packed_otherwise_than_keras_does_is_refused(member: str, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in GOOD.items():
            file.writestr(name, content)
    # As a fuzzer found it: in the directory at the end, the method is 36 bytes before the name.
    spoilt = bytearray(buffer.getvalue())
    spoilt[spoilt.rindex(member.encode()) - 36] = method
    assert "packed in a way" in archive_fault(io.BytesIO(spoilt), MB)


@given(st.integers(0, 600), st.binary(max_size=8))
def test_a_damaged_archive_is_judged(position: int, damage: bytes) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in GOOD.items():
            file.writestr(name, content)
    content = buffer.getvalue()
    damaged = content[:position] + damage + content[position + 4 :]

    assert isinstance(archive_fault(io.BytesIO(damaged), MB), str)
    assert isinstance(archive_fault(io.BytesIO(content[:position]), MB), str)


@pytest.mark.parametrize(
    ("metadata", "version"),
    [
        ({"metadata.json": b'{"keras_version": "2.15.0"}'}, "2.15.0"),
        ({"metadata.json": b"[1]"}, ""),
        ({"metadata.json": b"\xff"}, ""),
        ({}, ""),
    ],
)
def test_the_version_that_saved_an_archive_is_read(
    tmp_path: Path, metadata: dict[str, bytes], version: str
) -> None:
    with zipfile.ZipFile(archive(tmp_path / "m.keras", metadata)) as file:
        assert saved_by(file) == version


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89HDF\r\n\x1a\n\0\0", ".h5"),
        (b"PK\x03\x04..", ".keras"),
        (b"\x80\x04\x95", ""),
        (b"import os", ""),
        (b"", ""),
    ],
)
def test_a_file_is_known_by_its_first_bytes(head: bytes, kind: str) -> None:
    assert suffix(head) == kind
