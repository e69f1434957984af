"""Where and in which numbers a computation runs: device, precision, memory of the process."""

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str | None = None) -> torch.device:
    """Return the device called ``name``, or the best one here: CUDA, then Apple's MPS, then the CPU.

    Raises:
        ValueError: there is no such device here.
    """
    if name in (None, "", "auto"):
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {name!r} is not available here ({str(error).splitlines()[0]}); try --device cpu"
        ) from None
    return device


def native_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware (elsewhere it would be emulated, and slow)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return (
            bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
            and torch.backends.cpu.get_cpu_capability() == "AVX512"
            and _cpu_flag("avx512_bf16")
        )
    return False


def choose_precision(name: str | None, device: torch.device) -> torch.dtype:
    """Return the dtype for ``fp32``, ``bf16`` or ``fp16``; without a name bf16 where it is native, else fp32.

    Raises:
        ValueError: unknown name, or fp16 on a CPU, which computes it hundreds of times slower than fp32.
    """
    if name in (None, "", "auto"):
        return torch.bfloat16 if native_bf16(device) else torch.float32
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r} is none of {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise ValueError("fp16 on a CPU is far slower than fp32; choose --precision bf16 or fp32")
    return PRECISIONS[name]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Return the context in which networks run in ``dtype`` and what needs fp32 stays in fp32."""
    if dtype is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def training_layout(system: torch.nn.Module, device: torch.device) -> torch.memory_format:
    """Return the memory layout in which a system learns: channels last, if no network of it learns slower so on a CPU.

    A network says so by ``contiguous_on_cpu``: transposed convolutions made a pix2pix step 1.08 times as long.
    """
    plain = device.type == "cpu" and any(getattr(each, "contiguous_on_cpu", False) for each in system.children())
    return torch.contiguous_format if plain else torch.channels_last


def keep_memory() -> bool:
    """Keep freed tensors in the process instead of handing every one back to the system (glibc only).

    Large tensors come and go in every step; handing each back costs a page fault for every 4 KiB of the next one. It
    made a pix2pix step 1.18 times and upscaling 1.07 to 1.6 times as fast, for up to 40% more memory. For programs of
    our own only, never on import: it is a setting of the whole process. ``IMG2IMG_KEEP_MEMORY=0`` turns it off.
    """
    if os.environ.get("IMG2IMG_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    m_trim_threshold, m_mmap_max = -1, -4
    return bool(mallopt(m_mmap_max, 0) and mallopt(m_trim_threshold, -1))


def _cpu_flag(flag: str) -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            return any(flag in line.split() for line in file if line.startswith("flags"))
    except OSError:
        return False


def launch(function: Callable[[dict], Any], options: dict, processes: int) -> Any:
    """Run ``function(options)`` in several processes, by PyTorch's own launcher; return the first's result.

    Raises:
        ValueError: a process failed.
        KeyboardInterrupt: they were asked to stop, and did so in their own way.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="img2img",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    # The launcher puts its own handlers in place and leaves them there.
    names = [signal.SIGINT, signal.SIGTERM] + [getattr(signal, n) for n in ("SIGHUP", "SIGQUIT") if hasattr(signal, n)]
    main = threading.current_thread() is threading.main_thread()
    handlers = {name: signal.getsignal(name) for name in names} if main else {}
    for name in logging.root.manager.loggerDict:  # it reports signals and failures at length, each part by itself
        if name.startswith(("torch.distributed.elastic", "torch.multiprocessing")):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        return elastic_launch(config, _recorded)(function, options)[0]
    except SignalException:
        raise KeyboardInterrupt("stopped all processes; the same command goes on from there") from None
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        message = failure.message
        if isinstance(message, dict):
            message = message.get("message", "")
        said = (str(message).splitlines() or [""])[-1]
        if said.startswith("ValueError: "):
            raise ValueError(said.removeprefix("ValueError: ")) from None
        raise ValueError(f"process {failure.local_rank} failed: {said}") from None
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)


def _recorded(function: Callable[[dict], Any], options: dict) -> Any:
    """Run a function in its process, and leave the reason of a failure where the launcher finds it."""
    from torch.distributed.elastic.multiprocessing.errors import record

    return record(function)(options)


def over_processes(value: torch.Tensor) -> torch.Tensor:
    """Return the sum of a value over the processes that train together; of one alone, the value itself."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value
