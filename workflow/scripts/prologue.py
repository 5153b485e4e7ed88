"""What every script does first: hold the job to its threads, and report errors in one line."""

import contextlib
import os
import platform
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from sgd_escape.errors import SgdEscapeError


def begin(snakemake: Any) -> None:
    """Call before JAX or NumPy is imported: both read their number of threads on import.

    XLA follows NPROC. An error of the user's prints one line; any other prints its traceback.
    Both also go to the rule's log file.
    """
    for name in ["NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]:
        os.environ[name] = str(snakemake.threads)
    # Half of a short job is compiling. Programs depend on the processor and on the threads.
    programs = Path(".cache") / "jax" / f"{platform.node()}_{snakemake.threads}"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(programs.absolute()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    # XLA's own, for GPUs, would put this folder's path into the key of every program, so that a
    # folder that was copied or moved found none.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")

    def report(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            # Snakemake says so; where the job was is of no use to anyone.
            return
        if issubclass(kind, SgdEscapeError):
            message = f"error: {error}\n"
        else:
            message = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(message)
        # On a full disk there is no room for it.
        with contextlib.suppress(OSError):
            Path(snakemake.log[0]).write_text(message)

    sys.excepthook = report
