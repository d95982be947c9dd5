"""The shape of the benchmarks: a folder a command, and beside the folders what several of them use."""

from pathlib import Path

from test_layers import circle_in, imported_names

import benchmarks

ROOT = Path(benchmarks.__file__).parent
COMMANDS = {"augment", "train", "score", "accuracy", "speedrun", "peers", "gpu", "siege"}
SHARED = {"benchmarks.rows", "benchmarks.kept", "benchmarks.plots", "benchmarks.photographs"}


def imports():
    """Give what each module imports of the benchmarks, by full name: "benchmarks.gpu.op"."""
    paths = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    found = {module: imported_names(path.read_text(encoding="utf-8")) for module, path in paths.items()}
    return {
        module: {name if name in paths else name.rpartition(".")[0] for name in names if name.startswith("benchmarks.")}
        for module, names in found.items()
    }


def test_each_folder_is_a_command_and_only_shared_files_lie_beside_them():
    modules = imports().keys()
    assert {f"benchmarks.{command}.__main__" for command in COMMANDS} <= modules
    assert {module for module in modules if module.count(".") == 1} == SHARED | {"benchmarks.__init__"}
    assert {path.name for path in ROOT.iterdir() if path.is_dir()} - {"__pycache__"} == COMMANDS | {"results"}


def test_imports_run_one_way_and_shared_files_import_no_folder():
    assert circle_in(imports()) == []
    for module in SHARED:
        assert imports()[module] <= SHARED, module
    assert not any(names for module, names in imports().items() if module.endswith("__init__"))  # which are signs alone
