"""The tuned tier: products in C++, compiled by torch's own loader when they are first asked for, once for a processor.

What is compiled is kept where torch keeps its extensions (TORCH_EXTENSIONS_DIR, or the user's cache), under a name that tells the
sources, torch's version and the processor's instructions apart. Nothing is locked: two processes may both compile, and each moves
what is finished to its place.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
SOURCES = (FOLDER / "linear.cpp", FOLDER / "layers.cpp")
ALWAYS = ("-O3", "-std=c++20", "-fopenmp")
FLAGS = {
    "AVX512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
    "BF16": ("-mavx512bf16",),
    "VNNI": ("-mavx512vnni",),
    "AMX": ("-mamx-tile", "-mamx-bf16", "-mamx-int8"),
}
"""By what torch says of the processor; for any other the compiler's own choice is right everywhere."""


class NotBuilt(RuntimeError):
    """The tuned tier cannot be used here; says why in one line."""


def missing() -> str:
    """What this machine lacks for the tuned tier, in one line; "" where it has all. Compiles nothing."""
    from torch.utils import cpp_extension  # imported late: it brings setuptools along

    if not torch.backends.openmp.is_available():
        return "this torch was built without OpenMP, which the tuned tier needs"
    if _place().exists():
        return ""
    with _own_scripts():
        if shutil.which(compiler := cpp_extension.get_cxx_compiler()) is None:
            return f"the tuned tier needs a C++ compiler, and {compiler} was not found"
        return "" if cpp_extension.is_ninja_available() else "the tuned tier needs ninja, which was not found (pip install ninja)"


@contextmanager
def _own_scripts() -> Iterator[None]:
    """This environment's programs at the end of the path, where pip puts ninja: it need not be activated."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{before}{os.pathsep}{sysconfig.get_path('scripts')}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def load() -> None:
    """Make `torch.ops.veriformer` known. Raises NotBuilt where something is missing, or where the compiler fails."""
    if why := missing() or _not_loaded():
        raise NotBuilt(why)


def dtypes() -> tuple[torch.dtype, ...]:
    """Of the matrices that this processor has products with; int8 is of float32, rounded."""
    more = {"BF16": torch.bfloat16, "VNNI": torch.int8}
    return torch.float32, *(dtype for name, dtype in more.items() if name in capability().split())


@cache
def _not_loaded() -> str:
    """Why it could not be loaded, "" if it was: once in a process."""
    place = _place()
    try:
        if place.exists():
            torch.ops.load_library(place)
        else:
            _build(place)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"the tuned tier could not be compiled: {str(error).strip().splitlines()[0]}"
    return ""


@cache
def _place() -> Path:
    """Where what was compiled of these sources is kept."""
    from torch.utils import cpp_extension  # imported late: it brings setuptools along

    told_apart = hashlib.sha256(f"{torch.__version__} {capability()}".encode())
    for file in sorted(FOLDER.glob("*.[ch]*")):
        told_apart.update(file.read_bytes())
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    return Path(root) / f"veriformer_{told_apart.hexdigest()[:16]}.so"


@cache
def capability() -> str:
    """The instructions that are compiled for: AVX512 and what comes with it, AVX2, or what every processor of the kind has."""
    found = torch.backends.cpu.get_cpu_capability()
    if found != "AVX512":
        return found if found in FLAGS else "DEFAULT"
    cpu = torch.cpu
    more = {"BF16": cpu._is_avx512_bf16_supported(), "VNNI": cpu._is_vnni_supported(), "AMX": cpu._init_amx()}  # noqa: SLF001 (have no public names)
    return " ".join(["AVX512", *(name for name, there in more.items() if there)])


def _build(place: Path) -> None:
    """Compile, load, and keep. Raises OSError, RuntimeError or SubprocessError."""
    from torch.utils import cpp_extension  # imported late: it brings setuptools along

    print(f"veriformer: compiling the tuned tier for {capability()} (once; some 15 seconds)", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder, _own_scripts():
        cpp_extension.load(
            place.stem,
            list(map(str, SOURCES)),
            extra_cflags=[*ALWAYS, *(flag for name in capability().split() for flag in FLAGS.get(name, ()))],
            extra_ldflags=["-fopenmp"],
            build_directory=folder,
            is_python_module=False,
        )
        with suppress(OSError):  # where nothing can be kept, the next process compiles again
            place.parent.mkdir(parents=True, exist_ok=True)
            beside = place.with_suffix(f".{os.getpid()}")
            shutil.copy(Path(folder) / f"{place.stem}.so", beside)
            beside.replace(place)
