"""Pickles of numbers, text, lists, dicts and arrays, read without running any code of theirs.

A pickle is a program that may call whatever it can name. Here it can name NumPy's array and data
type alone, and what it gets under these names are stand-ins that keep what they are told.
"""

import io
import math
import pickle

import numpy as np

KINDS = "biuf"  # of numbers: Booleans, integers, floating-point numbers


class _DataType:
    """In place of numpy.dtype."""

    def __init__(self, *told):
        code = told[0] if told else None
        code = code.decode() if isinstance(code, bytes) else code
        if not isinstance(code, str) or code[:1] not in KINDS or not code[1:].isdigit():
            raise pickle.UnpicklingError(f"arrays of {code!r}")
        self.code, self.order = code, "|"

    def __setstate__(self, state):
        order = state[1]
        self.order = order.decode() if isinstance(order, bytes) else order

    def made(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)


class _Array:
    """In place of numpy._reconstruct, which makes an empty array that is told its content."""

    def __init__(self, *told):
        self.content = None

    def __setstate__(self, state):
        _, shape, kind, by_columns, content = state
        if not isinstance(kind, _DataType) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of something else than numbers")
        kind = kind.made()
        if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(content):
            raise pickle.UnpicklingError(f"an array of {shape} in {len(content)} bytes")
        order = "F" if by_columns else "C"
        self.content = np.frombuffer(content, kind).reshape(shape, order=order)


class _Name:
    """In place of numpy.ndarray, which is only mentioned."""

    def __setstate__(self, state):
        raise pickle.UnpicklingError("a change of numpy.ndarray")


# Since NumPy 2 the module is called numpy._core.
STAND_INS = {
    ("numpy", "dtype"): _DataType,
    ("numpy", "ndarray"): _Name,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        try:
            return STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the name {module}.{name}") from None


def loads(content: bytes) -> dict:
    """The dict that the pickle describes, with its arrays. Text of Python 2 comes as bytes.

    ValueError, with a few words: it is damaged, or names anything but NumPy's array and data type.
    """
    try:
        values = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"{error or type(error).__name__}") from error
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__} instead of a dict")
    return {key: v.content if isinstance(v, _Array) else v for key, v in values.items()}
