"""The shape of the package: which room imports which, and what importing it does and does not do.

The list below is the picture of the package: its folders. Where the code finds a better one, change it with the code.
"""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fastcutpaste

PACKAGE = Path(fastcutpaste.__file__).parent

# A room, or a file beside the rooms, imports from lower lines alone, and neither from its neighbours on its own.
LAYERS = [
    {"op", "files", "console"},
    {"transforms", "images", "networks"},
    {"scoring", "adapters"},
    {"training"},
    {"reports"},
    {"cli"},
    {"__init__", "__main__"},  # the two doors: of the package and of the command line
]
ROOMS = {"op", "transforms", "images", "networks", "scoring", "adapters", "training", "reports", "cli"}
# What `import fastcutpaste` loads needs nothing beside torch; the others are for whoever scores without a trainer.
TORCH_ALONE = {"__init__", "files"}
TORCH_ALONE |= {f"op/{name}" for name in ("__init__", "checks", "color", "paste", "placement", "rules", "slices")}
TORCH_ALONE |= {f"op/{name}" for name in ("blends", "poisson", "shapes", "textures")}
TORCH_ALONE |= {f"transforms/{name}" for name in ("__init__", "baselines", "foreground", "patch", "ruled", "tasks")}
TORCH_ALONE |= {f"transforms/{name}" for name in ("blends", "defect", "fills", "masks", "recipes")}
TORCH_ALONE |= {f"scoring/{name}" for name in ("covariance", "dense", "density", "fitted", "gaussian", "memory")}
TORCH_ALONE |= {"networks/patchnet"}


def imported_names(source):
    """Give what a source text imports, wherever in it, by full name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package, so that a line says where a name lives"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_modules(source, modules):
    """Give the modules of the package among what a source text imports, as paths."""
    found = set()
    for name in filter(is_ours, imported_names(source) - {"fastcutpaste"}):  # which is imported for its version
        path = Path(*name.split(".")[1:])  # of a module, of a room, or of a name in one
        ways = [path, path / "__init__", path.parent, path.parent / "__init__"]
        found.add(next(way.as_posix() for way in ways if way.as_posix() in modules))
    return found


def is_ours(name):
    return name.partition(".")[0] == "fastcutpaste"


def layer_of(module):
    """Give the number of a module's layer; None if it is in no room."""
    place = module.partition("/")[0]
    return next((number for number, places in enumerate(LAYERS) if place in places), None)


def violations(sources):
    """List what breaks the picture, one sentence each.

    Args:
        sources: source text by module: "op/paste".
    """
    found, inside = [], {}
    for module, source in sources.items():
        room = module.partition("/")[0]
        if layer_of(module) is None:
            found.append(f"{module} is in no room")
            continue
        for name in sorted(imported_modules(source, sources)):
            if name.partition("/")[0] == room:
                inside.setdefault(room, {}).setdefault(module, set()).add(name)
            elif layer_of(name) is not None and layer_of(name) >= layer_of(module):
                found.append(f"{module} imports {name}, which is not below it")
    circles = {room: circle_in(imports) for room, imports in inside.items()}
    return found + [f"{room} has a circle: {' → '.join(circle)}" for room, circle in circles.items() if circle]


def circle_in(imports):
    """Give the modules of a circle in turn, the first one last again; none if imports run one way."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


@pytest.fixture(scope="module")
def sources():
    paths = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).with_suffix("").as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_rooms_import_downward_and_inside_them_imports_run_one_way(sources):
    assert violations(sources) == []


def test_the_folder_list_is_the_picture():
    assert {path.name for path in PACKAGE.iterdir()} - {"__pycache__"} == ROOMS | {
        "__init__.py", "__main__.py", "console.py", "files.py", "py.typed",
    }  # fmt: skip
    assert set().union(*LAYERS) == ROOMS | {"files", "console", "__init__", "__main__"}


def test_a_room_says_in_a_few_lines_what_comes_in_and_goes_out(sources):
    for room in ROOMS - {"cli"}:  # whose door is the command line itself
        body = ast.parse(sources[f"{room}/__init__"]).body
        assert [type(node) for node in body] == [ast.Expr], room
        assert len(ast.get_docstring(ast.Module(body, [])).splitlines()) <= 3, room


def test_no_file_is_longer_than_a_newcomer_reads_in_one_go(sources):
    assert [module for module, source in sources.items() if len(source.splitlines()) > 350] == []


@pytest.mark.parametrize(
    "line",
    [
        "from fastcutpaste.training.loop import train",
        "import fastcutpaste.training.loop",
        "import fastcutpaste.training.loop as t",
        "from fastcutpaste.training import loop",
        "def late():\n    from fastcutpaste.training.loop import train",
        "if TYPE_CHECKING:\n    from fastcutpaste.training.loop import train",
    ],
)
def test_an_upward_import_is_reported_however_it_is_written(sources, line):
    made_up = sources | {"op/paste": sources["op/paste"] + "\n" + line + "\n"}
    assert violations(made_up) == ["op/paste imports training/loop, which is not below it"]


@pytest.mark.parametrize(
    ("module", "line", "report"),
    [
        ("op/color", "import fastcutpaste.files", "op/color imports files, which is not below it"),
        ("scoring/export", "from fastcutpaste.adapters import kornia",
         "scoring/export imports adapters/kornia, which is not below it"),
        ("images/decode", "import fastcutpaste.networks",
         "images/decode imports networks/__init__, which is not below it"),
        ("reports/page", "import fastcutpaste.__main__", "reports/page imports __main__, which is not below it"),
    ],
)  # fmt: skip
def test_an_import_from_a_neighbour_or_from_the_doors_is_reported(sources, module, line, report):
    assert violations(sources | {module: f"{sources[module]}\n{line}\n"}) == [report]


def test_a_circle_inside_a_room_is_reported(sources):
    made_up = sources | {"op/checks": sources["op/checks"] + "\nfrom fastcutpaste.op.color import normalize\n"}
    [report] = violations(made_up)
    assert report.startswith("op has a circle: ")
    assert "op/checks → op/color" in report
    made_up = sources | {"op/checks": sources["op/checks"] + "\ndef late():\n    import fastcutpaste.op.slices\n"}
    [report] = violations(made_up)
    assert report.startswith("op has a circle: ")
    assert "op/checks → op/slices" in report


def test_a_module_beside_the_rooms_is_reported(sources):
    assert violations(sources | {"helpers": "import torch"}) == ["helpers is in no room"]


def test_the_package_itself_is_imported_for_its_version_alone(sources):
    """Names come from the module that defines them, so that a line shows where they come from."""
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "fastcutpaste", module
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "fastcutpaste":
                assert node.attr == "__version__", module


def test_the_core_needs_torch_alone(sources):
    """Torch, NumPy, which comes with it, and the standard library."""
    for module in TORCH_ALONE:
        tree = ast.parse(sources[module])
        for node in ast.walk(tree):  # what only a type checker reads is loaded by nobody
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = [ast.Pass()]
        tops = {name.partition(".")[0] for name in imported_names(ast.unparse(tree)) if not is_ours(name)}
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
assert not {"fastcutpaste.images", "fastcutpaste.networks", "fastcutpaste.scoring"} & set(sys.modules)
"""
    result = run_python(code)
    assert result.stdout == ""
    assert result.stderr == ""


def test_a_detector_and_what_it_takes_load_on_first_use():
    code = """
import sys, fastcutpaste
missing = [name for name in fastcutpaste.__all__ if not hasattr(fastcutpaste, name)]
assert not missing, missing
from fastcutpaste import CutPaste3Way, Detector, Network, load_images, train_network
from fastcutpaste.scoring.detector import Detector as the_same
assert Detector is the_same
assert set(fastcutpaste.__all__) <= set(dir(fastcutpaste))
try:
    fastcutpaste.detector
except AttributeError as error:
    assert str(error) == "module 'fastcutpaste' has no attribute 'detector'", error
else:
    raise AssertionError
"""
    run_python(code)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("fastcutpaste.cli", ("torch", "numpy", "rich.progress")),  # all that --help loads
        ("fastcutpaste.cli.predict", ("torch", "lightning_fabric", "torchvision", "matplotlib", "scipy", "skimage")),
        ("fastcutpaste.reports.scored", ("lightning_fabric", "torchvision", "matplotlib", "scipy", "torch._dynamo")),
    ],
)
def test_commands_start_without_what_they_can_do_without(module, absent):
    loaded = f"import sys, {module}; late = [name for name in {absent} if name in sys.modules]; assert not late, late"
    run_python(loaded)


def test_all_lists_every_public_name_once_in_order():
    """Both ways a name comes to be: at once, or on first use, from the module that a type checker is told."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    lines = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    at_once = {alias.name: node.module for node in lines for alias in node.names}
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    late = {alias.name: node.module for node in block.body for alias in node.names}
    assert late == {name: f"fastcutpaste.{module}" for name, module in fastcutpaste._ON_FIRST_USE.items()}
    ours = {name for name, module in at_once.items() if is_ours(module)}
    names = fastcutpaste.__all__
    assert len(set(names)) == len(names)
    assert names == sorted(names)
    assert set(names) == ours | set(late) | {"__version__"}
