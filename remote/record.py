"""Records as JSON: named tuples written and read back, with every type checked.

One codec serves the wire and the files on the VM, so that neither side handles untyped data. Named
tuples, since the classes of a frozen dataclass take eight times as long to make, at each start.
"""

from __future__ import annotations

import enum
import json
import sys
import types
import typing
from typing import Any, Dict, Type, TypeVar, Union

Record = TypeVar("Record")

_LARGEST = sys.float_info.max
# Beyond what any system counts; with a much larger one even a division fails.
_LARGEST_INT = 2**64 - 1

# Finding out takes three times as long as all the rest of a decode.
# `Optional[int]`, and as newer versions of Python write it `int | None`.
_UNIONS = (Union, getattr(types, "UnionType", Union))

_known_types: Dict[Type[Any], Dict[str, Any]] = {}


class Malformed(ValueError):
    """Data that is not the record it should be: says where, what was expected, what was found."""


def encode(record: object) -> Dict[str, Any]:
    """The record as plain JSON values, by field name; enums by their value."""
    assert _is_record(type(record))
    return {name: _plain(value) for name, value in record._asdict().items()}  # type: ignore[attr-defined]


def decode(cls: Type[Record], data: object, where: str = "") -> Record:
    """The record of type `cls` in `data`.

    Fields with a default may be absent, and unknown keys are ignored: a newer version of the
    other side may know more than this one.

    Raises:
        Malformed: a field is missing or has the wrong type.
    """
    where = where or cls.__name__
    if not isinstance(data, dict):
        raise Malformed(f"{where}: expected an object, found {_kind(data)}")
    values = {}
    for name, kind in _types(cls).items():
        if name in data:
            values[name] = _value(kind, data[name], f"{where}.{name}")
        elif name not in cls._field_defaults:  # type: ignore[attr-defined]
            raise Malformed(f"{where}.{name}: missing")
    return cls(**values)


def _types(cls: Type[Any]) -> Dict[str, Any]:
    if cls not in _known_types:
        _known_types[cls] = typing.get_type_hints(cls)
    return _known_types[cls]


def _is_record(kind: Any) -> bool:  # noqa: ANN401  # a type hint is any object
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def to_bytes(record: object) -> bytes:
    """The record as one line of ASCII JSON.

    Raises:
        ValueError: it holds a number that `from_bytes` would refuse.
    """
    return json.dumps(encode(record), ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def from_bytes(cls: Type[Record], data: bytes) -> Record:
    """Undo `to_bytes`.

    Raises:
        Malformed: not JSON, or not such a record.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{cls.__name__}: not JSON") from error
    return decode(cls, value)


def _plain(value: object) -> object:
    if isinstance(value, enum.Enum):
        return value.value
    if _is_record(type(value)):
        return encode(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, int) and abs(value) > _LARGEST_INT:
        raise ValueError("a number larger than any that can be read back")
    return value


def _value(kind: Any, data: object, where: str) -> object:  # noqa: ANN401  # a type hint is any object
    origin = typing.get_origin(kind)
    if origin in _UNIONS:
        if data is None:
            return None
        (inner,) = (arg for arg in typing.get_args(kind) if arg is not type(None))
        return _value(inner, data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise Malformed(f"{where}: expected a list, found {_kind(data)}")
        inner = typing.get_args(kind)[0]
        return tuple(_value(inner, item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            raise Malformed(f"{where}: expected an object, found {_kind(data)}")
        inner = typing.get_args(kind)[1]
        return {key: _value(inner, item, f"{where}.{key}") for key, item in data.items()}
    if _is_record(kind):
        return decode(kind, data, where)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        for member in kind:
            if type(data) is type(member.value) and data == member.value:
                return member
        raise Malformed(f"{where}: unknown value, found {_kind(data)}")
    # bool is an int to isinstance, hence the exact types; a whole float may arrive as an int.
    if kind is float and isinstance(data, (int, float)) and not isinstance(data, bool):
        # Compared before it is converted: an int may be larger than any float.
        if -_LARGEST <= data <= _LARGEST:
            return float(data)
        raise Malformed(f"{where}: expected a finite number, found {_kind(data)}")
    if kind is float or type(data) is not kind:
        raise Malformed(f"{where}: expected {kind.__name__}, found {_kind(data)}")
    if isinstance(data, int) and abs(data) > _LARGEST_INT:
        raise Malformed(f"{where}: expected a smaller number, found {_kind(data)}")
    return data


def _kind(data: object) -> str:
    if data is None:
        return "null"
    if isinstance(data, (dict, list)):
        # Not its text, which may be as deep as Python can nest calls, and longer than memory.
        return "an object" if isinstance(data, dict) else "a list"
    return f"{type(data).__name__} {str(data)[:40]!r}"
