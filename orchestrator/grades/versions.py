"""Which TensorFlow uses which GPU, and which reads the models of which other. Pure.

Sources: the build information in TensorFlow's wheels (`tf.sysconfig.get_build_info()`); NVIDIA's
table of compute capabilities; and models saved by 2.12, 2.15 and 2.21, loaded by 2.5.
"""

from __future__ import annotations

import re

Version = tuple[int, int]

# From which version on the wheels hold no code for GPUs below a compute capability.
_FLOORS: tuple[tuple[Version, Version], ...] = (
    ((2, 17), (6, 0)),
    ((2, 15), (5, 0)),
    ((2, 5), (3, 5)),
)
# For drivers too old to tell: the K80's last one is.
_CAPABILITIES = {
    "K80": (3, 7),
    "K40": (3, 5),
    "K20": (3, 5),
    "K520": (3, 0),
    "M40": (5, 2),
    "M60": (5, 2),
    "P100": (6, 0),
    "P4": (6, 1),
    "P40": (6, 1),
    "V100": (7, 0),
    "T4": (7, 5),
    "A100": (8, 0),
    "A10": (8, 6),
    "L4": (8, 9),
    "H100": (9, 0),
}
_KERAS_3 = (2, 16)


def version(text: str) -> Version | None:
    """The first `2.15` in a text."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def capability(gpu: str) -> Version | None:
    """The compute capability of a GPU as `train doctor` names it; None where nobody knows."""
    told = re.search(r"compute capability (\d+\.\d+)", gpu)
    if told:
        return version(told[1])
    words = re.findall(r"[A-Z]+\d+", gpu.partition(",")[0])
    return next((_CAPABILITIES[word] for word in words if word in _CAPABILITIES), None)


def gpu_unused(gpu: str, tensorflow: str) -> str:
    """Why this TensorFlow would leave a GPU idle and train on the CPU; "" where it would not."""
    has, used = capability(gpu), version(tensorflow)
    if has is None or used is None:
        return ""
    floor = next((floor for since, floor in _FLOORS if used >= since), None)
    if floor is None or has >= floor:
        return ""
    return (
        f"{tensorflow} has no code for {gpu.partition(',')[0]} (compute capability "
        f"{has[0]}.{has[1]}, it needs {floor[0]}.{floor[1]}) and would train on the CPU at the "
        "GPU's price"
    )


def newest_for(gpu: str) -> str:
    """The newest TensorFlow that uses a GPU, as pip is asked for it; "" where any does."""
    has = capability(gpu)
    dropped = [since for since, floor in _FLOORS if has is not None and has < floor]
    return f"tensorflow<{min(dropped)[0]}.{min(dropped)[1]}" if dropped else ""


def is_keras_3(tensorflow: str) -> bool:
    known = version(tensorflow)
    return known is not None and known >= _KERAS_3


def exam_cannot_read(tensorflow: str, exam: str) -> tuple[str, str]:
    """What of the models saved by one TensorFlow another cannot load, and what to do; "" for none.

    Args:
        exam: the version that the exam judges with.
    """
    there, here = version(tensorflow), version(exam)
    if there is None or here is None:
        return "", ""
    if there >= _KERAS_3 > here:
        return (
            f"no model that {tensorflow} (Keras 3) saves can be loaded by the exam's tensorflow "
            f"{exam} (Keras 2)",
            f"train with tensorflow=={exam}.*; or with tf_keras and TF_USE_LEGACY_KERAS=1, and "
            "save with model.save('mymodel.h5')",
        )
    if there > here:
        return (
            f"the exam's tensorflow {exam} does not know options that {tensorflow} writes, those "
            "of global pooling, attention, Normalization and others: such models do not load",
            f"train with tensorflow=={exam}.*, and save with model.save('mymodel.h5')",
        )
    return "", ""
