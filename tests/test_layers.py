"""The shape of the package: who imports whom, and what importing it does and does not do.

The table below is the picture of the package. Where the code finds a better one, change the picture with it.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastcutpaste

PACKAGE = Path(fastcutpaste.__file__).parent

# module: (its layer, the modules of the package it imports, every one of them of a lower layer)
LAYERS = {
    "allocation": (0, set()),
    "checks": (0, set()),
    "console": (0, set()),
    "convolution": (0, set()),
    "decode": (0, set()),
    "defects": (0, set()),
    "covariance": (0, set()),
    "fitted": (0, set()),
    "gaussian": (1, {"covariance", "fitted"}),
    "memory": (1, {"covariance", "fitted"}),
    "density": (2, {"fitted", "gaussian", "memory"}),
    "seeds": (0, set()),
    "files": (0, set()),
    "metrics": (0, set()),
    "patchnet": (0, set()),
    "color": (1, {"checks"}),
    "data": (1, {"decode"}),
    "batches": (1, {"decode", "seeds"}),
    "dali_batches": (2, {"batches", "decode"}),
    "demo": (1, {"defects", "files"}),
    "dense": (1, {"checks"}),
    "placement": (2, {"checks", "color"}),
    "slices": (3, {"color", "placement"}),
    "kernels": (3, {"checks", "color", "placement"}),
    "functional": (4, {"checks", "color", "kernels", "placement", "slices"}),
    "model": (2, {"color", "convolution", "patchnet"}),
    "transforms": (5, {"checks", "color", "functional", "placement"}),
    "gradcam": (3, {"checks", "model"}),
    "detector_config": (3, {"dense", "density"}),
    "embedder": (4, {"dense", "detector_config", "model", "patchnet"}),
    "detector": (
        5,
        {"checks", "color", "dense", "density", "detector_config", "embedder", "files", "metrics", "model"},
    ),
    "tasks": (6, {"color", "functional", "placement", "transforms"}),
    "baselines": (6, {"checks", "functional", "transforms"}),
    "foreground": (6, {"checks", "placement", "transforms"}),
    "export": (6, {"color", "dense", "detector", "files", "patchnet"}),
    "page": (1, {"files"}),
    "regions": (0, set()),
    "report": (4, {"files", "metrics"}),
    "adapters/__init__": (0, set()),
    "adapters/dali": (7, {"checks", "color", "placement"}),
    "adapters/kornia": (7, {"functional", "placement", "transforms"}),
    "adapters/torchvision": (7, {"checks", "placement", "transforms"}),
    "__init__": (7, {"baselines", "color", "foreground", "functional", "placement", "tasks", "transforms"}),
    "launch": (3, {"model"}),
    "step": (7, {"functional", "launch", "tasks", "transforms"}),
    "train": (8, {"allocation", "launch", "model", "placement", "seeds", "step", "tasks", "transforms"}),
    "checkpoint": (9, {"files", "train"}),
    "watch": (9, {"console", "files", "step", "train"}),
    "recipe": (
        10,
        {"__init__", "checkpoint", "console", "detector_config", "model", "step", "tasks", "train", "transforms"}
        | {"watch"},
    ),
    "ensemble": (6, {"detector", "files"}),
    "runs": (
        8,
        {
            "__init__",
            "console",
            "data",
            "dense",
            "detector",
            "ensemble",
            "files",
            "launch",
            "metrics",
            "page",
            "report",
        },
    ),
    "cli/__init__": (11, {"allocation", "__init__", "console"}),
    "cli/options": (4, {"console", "launch"}),
    "cli/demo": (
        11,
        {"batches", "cli/options", "console", "demo", "dense", "detector", "detector_config", "model", "recipe", "runs"}
        | {"step"},
    ),
    "cli/train": (
        11,
        {"batches", "checkpoint", "cli/options", "console", "dali_batches", "data", "detector", "detector_config"}
        | {"ensemble", "launch", "metrics", "model", "recipe", "runs", "step", "transforms"},
    ),
    "cli/evaluate": (11, {"cli/options", "console", "data", "ensemble", "runs"}),
    "cli/predict": (
        11,
        {"cli/options", "console", "data", "detector", "ensemble", "launch", "regions", "report", "runs"},
    ),
    "cli/export": (11, {"cli/options", "console", "ensemble", "export", "runs"}),
    "cli/preview": (
        11,
        {"baselines", "cli/options", "console", "data", "foreground", "report", "transforms"},
    ),
    "__main__": (12, {"cli/__init__"}),
}
# What `import fastcutpaste` loads needs nothing beside torch; the two others are for whoever scores without a trainer.
TORCH_ALONE = {
    "__init__",
    "checks",
    "color",
    "placement",
    "slices",
    "functional",
    "transforms",
    "baselines",
    "foreground",
    "tasks",
}
TORCH_ALONE |= {"files", "covariance", "dense", "fitted", "gaussian", "memory", "density", "patchnet"}


def imported_modules(source, modules):
    """Give what a source text imports, wherever in it: modules of the package by stem, others by their full name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # from . import x, from .x import y
                base = f"fastcutpaste.{base}".rstrip(".")
            below = [alias.name for alias in node.names if base == "fastcutpaste" and alias.name in modules]
            names = [f"fastcutpaste.{name}" for name in below] or [base]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            path = rest.replace(".", "/") or "__init__"
            found.add(name if first != "fastcutpaste" else path if path in modules else f"{path}/__init__")
    return found


def violations(sources, layers):
    """List what breaks the picture, one sentence each.

    Args:
        sources: source text by module.
        layers: layer and allowed imports by module.
    """
    found = [f"{module} is in the table but not in the package" for module in layers if module not in sources]
    for module, source in sources.items():
        if module not in layers:
            found.append(f"{module} is not in the table")
            continue
        layer, allowed = layers[module]
        imports = {name for name in imported_modules(source, sources) if name in sources}
        found += [f"{module} imports {name}, which the table does not allow" for name in sorted(imports - allowed)]
        found += [f"{module} may import {name} but does not" for name in sorted(allowed - imports)]
        found += [
            f"{module} (layer {layer}) imports {name} (layer {layers[name][0]}), not a lower layer"
            for name in sorted(imports | allowed)
            if name in layers and layers[name][0] >= layer
        ]
    return found


@pytest.fixture(scope="module")
def sources():
    paths = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).with_suffix("").as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_every_module_imports_what_the_table_says_and_only_downward(sources):
    assert not violations(sources, LAYERS)


@pytest.mark.parametrize(
    "line",
    [
        "from fastcutpaste.train import train",
        "import fastcutpaste.train",
        "import fastcutpaste.train as t",
        "from fastcutpaste import train",
        "from .train import train",
        "from . import train",
        "def late():\n    from fastcutpaste.train import train",
        "if TYPE_CHECKING:\n    from fastcutpaste.train import train",
    ],
)
def test_an_upward_import_is_reported_however_it_is_written(sources, line):
    made_up = sources | {"functional": sources["functional"] + "\n" + line + "\n"}
    assert violations(made_up, LAYERS) == [
        "functional imports train, which the table does not allow",
        "functional (layer 4) imports train (layer 8), not a lower layer",
    ]


def test_allowing_an_upward_or_sideways_import_in_the_table_is_reported(sources):
    for name in ("density", "train"):  # of the same layer, of a higher one
        made_up = sources | {"metrics": sources["metrics"] + f"\nimport fastcutpaste.{name}\n"}
        table = LAYERS | {"metrics": (0, {name})}
        assert violations(made_up, table) == [
            f"metrics (layer 0) imports {name} (layer {LAYERS[name][0]}), not a lower layer"
        ]


def test_a_stale_table_is_reported(sources):
    table = LAYERS | {"color": (1, {"checks", "files"}), "gone": (0, set())}
    assert violations(sources | {"new": "import fastcutpaste"}, table) == [
        "gone is in the table but not in the package",
        "color may import files but does not",
        "new is not in the table",
    ]


def test_the_package_itself_is_imported_for_its_version_alone(sources):
    """Names come from the module that defines them, so that the table shows where they come from."""
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "fastcutpaste", module
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "fastcutpaste":
                assert node.attr == "__version__", module


def test_the_core_needs_torch_alone(sources):
    """Torch, NumPy, which comes with it, and the standard library."""
    for module in TORCH_ALONE:
        tops = {name.partition(".")[0] for name in imported_modules(sources[module], sources) if name not in sources}
        assert tops <= {"torch", "numpy", *sys.stdlib_module_names}, module


# Import


def statements_at_import(body):
    """Give every statement that runs at import, those inside `if` and classes included."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.ClassDef | ast.With | ast.For | ast.While):
            yield from statements_at_import([*node.body, *getattr(node, "orelse", [])])
        if isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from statements_at_import([*node.body, *handlers, *node.orelse, *node.finalbody])


def effects_at_import(source):
    """List the lines of a source text that do something at import beyond defining names of its own.

    Calls whose result is not kept (`torch.set_num_threads(1)`, `os.environ.update(…)`), and assignments to what
    belongs to others (`torch.backends.cudnn.benchmark = True`, `os.environ["X"] = "1"`).
    """
    lines = []
    for node in statements_at_import(ast.parse(source).body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        call = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
        if call or any(isinstance(target, ast.Attribute | ast.Subscript) for target in targets):
            lines.append(node.lineno)
    return lines


def test_no_module_does_anything_at_import(sources):
    for module, source in sources.items():
        if module != "__main__":  # whose purpose it is
            assert effects_at_import(source) == [], module


@pytest.mark.parametrize(
    "line",
    [
        "torch.set_num_threads(1)",
        "torch.backends.cudnn.benchmark = True",
        "os.environ['X'] = '1'",
        "if True:\n    warnings.simplefilter('ignore')",
        "try:\n    register()\nexcept ImportError:\n    pass",
        "class Holder:\n    register()",
        "for name in names:\n    register(name)",
    ],
)
def test_an_effect_at_import_is_reported(line):
    harmless = '"""Doc."""\nimport torch\nX = tuple([1])\ndef f():\n    torch.manual_seed(0)\n'
    assert effects_at_import(harmless) == []
    assert effects_at_import(harmless + line) != []


def run_python(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result


def test_importing_the_package_loads_torch_alone_and_changes_nothing():
    code = """
import os, sys, threading, torch
import torch.fx  # counted as torch
def state():
    return (
        torch.get_num_threads(), torch.get_default_dtype(), torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled(),
        torch.is_grad_enabled(), torch.get_rng_state().tolist(), dict(os.environ), threading.active_count(),
    )
before, loaded = state(), set(sys.modules)
import fastcutpaste
new = {name.partition(".")[0] for name in set(sys.modules) - loaded}
heavy = {"torchvision", "kornia", "PIL", "matplotlib", "sklearn", "skimage", "scipy", "safetensors", "timm", "rich"}
heavy |= {"typer", "click", "pandas", "nvidia", "triton"}
assert not new & heavy, new & heavy
assert not heavy & {name.partition(".")[0] for name in sys.modules}, heavy & set(sys.modules)
assert not torch.cuda.is_initialized()
assert state() == before
missing = [name for name in fastcutpaste.__all__ if not hasattr(fastcutpaste, name)]
assert not missing, missing
"""
    result = run_python(code)
    assert result.stdout == ""
    assert result.stderr == ""


def test_all_lists_every_public_name_once_in_order():
    names = fastcutpaste.__all__
    assert len(set(names)) == len(names)
    imported = {
        alias.asname or alias.name
        for node in ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(names) == imported | {"__version__"}
