"""Write the API reference, from the docstrings: ``python docs/build_api.py FOLDER``.

The reference covers what `import neuroal` offers and the modules that methods, records and tables
of one's own need. It reads no network.
"""

from __future__ import annotations

import sys
from pathlib import Path

import neuroal

MODULES = (
    *("neuroal", "neuroal.pruners.base", "neuroal.topups.base", "neuroal.search.context"),
    *("neuroal.kernels.input_statistics", "neuroal.sparsity.allocation", "neuroal.sparsity.plan"),
    *("neuroal.sparsity.budget", "neuroal.sparsity.schedule", "neuroal.models.linears"),
    *("neuroal.models.adapter", "neuroal.records.schema", "neuroal.tables.reading"),
    *("neuroal.tables.selection", "neuroal.tracking.progress", "neuroal.config.schema"),
    *(f"neuroal.pruners.{name}" for name in ("magnitude", "wanda", "multiflow", "sparsegpt")),
    "neuroal.pruners.alps",
    *(f"neuroal.topups.{name}" for name in ("uniform", "neuroal", "owl", "alpha", "dlp", "atp")),
    *(f"neuroal.topups.{name}" for name in ("fisher", "marginal", "evolve", "plan_file")),
    "neuroal.refine.dsnot",
)


def build(folder: Path) -> Path:
    """Write the reference to `folder`; return its first page."""
    import pdoc
    from pdoc.render import configure

    for name in neuroal.__all__:  # the package loads its names on first use, which pdoc does not
        setattr(neuroal, name, getattr(neuroal, name))
    configure(docformat="google", show_source=False, footer_text=f"NeuroAL {neuroal.__version__}")
    pdoc.pdoc(*MODULES, output_directory=folder)
    return folder / "index.html"


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "api")))
