"""Figures: one line each at the end of a benchmark, and all of them in bench/out/figures.json."""

import json
from pathlib import Path

OUT = Path(__file__).parent / "out" / "figures.json"


class Figures:
    """Collects figures; `write` prints them and merges them into OUT."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, str]] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        """Add a figure, as `cycle_cpu_sqlite_c32`, 0.95, `ms`."""
        self._values[name] = (value, unit)

    def write(self) -> None:
        """Print `figure NAME VALUE UNIT` lines and keep them for later comparison."""
        OUT.parent.mkdir(exist_ok=True)
        known = json.loads(OUT.read_text()) if OUT.exists() else {}
        for name, (value, unit) in self._values.items():
            print(f"figure {name} {value:.4g} {unit}")
            known[name] = {"value": value, "unit": unit}
        OUT.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
