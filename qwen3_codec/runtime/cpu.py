"""The processor: how many cores this process may use (in a container, fewer than there are), what it has and lacks."""

import os
import re
from collections.abc import Iterator
from pathlib import Path


def usable_cores(cgroups: Path = Path("/sys/fs/cgroup"), listing: Path = Path("/proc/self/cgroup")) -> int:
    """Whole cores by the process's affinity and by the CPU quota of its control groups (version 1 or 2), at least 1.

    `cgroups` is where they are mounted, `listing` names this process's own (Linux's manual page cgroups(7)).
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in map(_quota, _groups(cgroups, listing)) if quota)]))


def _groups(cgroups: Path, listing: Path) -> Iterator[Path]:
    """The folders of this process's groups and of all above them: the tightest quota counts."""
    lines = listing.read_text().splitlines() if listing.is_file() else ["0::/"]
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "" or "cpu" in controllers.split(","):
            own = Path(path.lstrip("/"))
            yield from (cgroups / ("cpu" if controllers else "") / folder for folder in (own, *own.parents))


def _quota(folder: Path) -> float | None:
    """Cores' worth of time that a group gets; None where it has no limit."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            return int(quota) / int(period) if int(quota) > 0 else None
        except (OSError, ValueError):  # not there, or "max"
            continue
    return None


# What decides how quickly products run: the widths, then the units for 8 and 16 bits.
_UNITS = "avx2 avx512f avx_vnni avx512_vnni avx512_bf16 avx512_fp16 amx_int8 amx_bf16 amx_fp16 asimd asimddp bf16 i8mm"

UNKNOWN = "unknown"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Its name, and the units for products that it has; UNKNOWN where Linux does not say."""
    name, has = _name_and_flags(cpuinfo)
    return ", ".join([name, *(unit for unit in _UNITS.split() if unit in has)])


def sums_overflow(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor adds products of 8 bits in 16, which is too few for them: x86 with AVX2 and without VNNI.

    ONNX Runtime has slower products for it, but does not choose them by itself. False where Linux does not say.
    """
    _, flags = _name_and_flags(cpuinfo)
    return "avx2" in flags and not flags & {"avx512_vnni", "avx_vnni"}


def _name_and_flags(cpuinfo: Path) -> tuple[str, set[str]]:
    """As Linux says them of x86 and of Arm; UNKNOWN and none elsewhere."""
    if not cpuinfo.is_file():
        return UNKNOWN, set()
    fields: dict[str, str] = dict(re.findall(r"^(.+?)\s*:\s*(.*)$", cpuinfo.read_text(), re.MULTILINE))
    return fields.get("model name", UNKNOWN), {*fields.get("flags", fields.get("Features", "")).split()}
