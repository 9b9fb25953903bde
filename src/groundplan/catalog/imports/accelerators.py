"""Accelerators of instance types and products, as documented by the providers. Facts and look-ups only."""

from __future__ import annotations

import re

_INSTANCES: tuple[tuple[str, str, int], ...] = (
    (r"p5e?\.48xlarge", "h100-sxm", 8), (r"p5en\.48xlarge", "h200-sxm", 8), (r"p4de?\.24xlarge", "a100", 8),
    (r"g5\.(12xlarge|24xlarge)", "a10g", 4), (r"g5\.48xlarge", "a10g", 8), (r"g5\.\w+", "a10g", 1),
    (r"g6\.(12xlarge|24xlarge)", "l4", 4), (r"g6\.48xlarge", "l4", 8), (r"g6\.\w+", "l4", 1),
    (r"g6e\.(12xlarge|24xlarge)", "l40s", 4), (r"g6e\.48xlarge", "l40s", 8), (r"g6e\.\w+", "l40s", 1),
    (r"p6-b200\.48xlarge", "b200-sxm", 8),
    (r"standard_nd96isr_h100_v5", "h100-sxm", 8), (r"standard_nd96isr_h200_v5", "h200-sxm", 8),
    (r"standard_nc40ads_h100_v5", "h100-sxm", 1), (r"standard_nc80adis_h100_v5", "h100-sxm", 2),
    (r"standard_nc24ads_a100_v4", "a100", 1), (r"standard_nc48ads_a100_v4", "a100", 2),
    (r"standard_nc96ads_a100_v4", "a100", 4), (r"standard_nd96\w*a100_v4", "a100", 8),
    (r"a3-highgpu-8g", "h100-sxm", 8), (r"a3-ultragpu-8g", "h200-sxm", 8), (r"a4-highgpu-8g", "b200-sxm", 8),
    (r"a2-(?:high|ultra)gpu-(\d)g", "a100", 0), (r"g2-standard-(?:4|8|12|16|32)", "l4", 1),
    (r"g2-standard-24", "l4", 2), (r"g2-standard-48", "l4", 4), (r"g2-standard-96", "l4", 8),
    (r"gpu-h100-sxm_(\d)gpu\S*", "h100-sxm", 0), (r"gpu-h200-sxm_(\d)gpu\S*", "h200-sxm", 0),
)  # fmt: skip
_PRODUCTS = (
    ("gb300", "gb300"), ("gb200", "gb200"), ("b300", "b300-sxm"), ("b200", "b200-sxm"), ("h200", "h200-sxm"),
    ("h100", "h100-sxm"), ("a100", "a100"), ("l40s", "l40s"), ("a10g", "a10g"), ("orin", "jetson-orin"), ("l4", "l4"),
)  # fmt: skip


def instance_accelerators(name: str) -> tuple[str, int] | None:
    """(hardware, units) of an instance type; None if it has no known accelerator."""
    for pattern, hardware, units in _INSTANCES:
        found = re.fullmatch(pattern, name.strip().lower(), re.ASCII)
        if found:
            return hardware, units or int(found[1])
    return None


def product_accelerator(name: str) -> str | None:
    """The hardware of a product such as NVIDIA-H100-80GB-HBM3; None if it is not known."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return next((hardware for part, hardware in _PRODUCTS if part in words), None)
