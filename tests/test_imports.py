"""The house rules that a program can check: who imports whom, sizes, annotations."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from setuptools import find_packages

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "projects" / "SCHNet" / "schnet"
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60

BASICS = {
    "schnet.errors",
    "schnet.weight_files",
    "schnet.checkpoint",
    "schnet.fingerprints",
    "schnet.state_misfit",
}
ALLOWED = {
    "schnet.errors": set(),
    "schnet.logs": set(),
    "schnet.official_weights": set(),
    "schnet.state_misfit": set(),
    "schnet.weight_kinds": set(),
    "schnet.fingerprints": set(),
    "schnet.native_types": set(),
    "schnet.score_maps": set(),
    "schnet.vocabularies": {"schnet.data"},
    "schnet.remap_file": {"schnet.errors", "schnet.data"},
    "schnet.remap": {
        *("schnet.errors", "schnet.data", "schnet.parsing", "schnet.photo_parser"),
        *("schnet.remap_file", "schnet.vocabularies"),
    },
    "schnet.downloads": {"schnet.official_weights"},
    "schnet.weight_files": {
        "schnet.errors",
        "schnet.downloads",
        "schnet.official_weights",
        "schnet.weight_kinds",
    },
    "schnet.checkpoint_files": {"schnet.errors", "schnet.weight_files"},
    "schnet.model_state": {"schnet.errors", "schnet.fingerprints", "schnet.state_misfit"},
    "schnet.export_file": {*BASICS - {"schnet.checkpoint"}, "schnet.checkpoint_files"},
    "schnet.checkpoint": {
        *BASICS,
        "schnet.checkpoint_files",
        "schnet.export_file",
        "schnet.model_state",
    },
    "schnet.versions": set(),
    "schnet.wandb_package": {"schnet.errors"},
    "schnet.config": {"schnet.config_merge", "schnet.config_checks"},
    "schnet.config_merge": {"schnet.errors"},
    "schnet.config_checks": {"schnet.errors"},
    "schnet.data": {"schnet.errors", "schnet.data"},
    "schnet.engines": {
        *("schnet.photo_parser", "schnet.inference", "schnet.onnx_parser", "schnet.trained"),
    },
    "schnet.file_locks": {"schnet.errors"},
    "schnet.image_files": {"schnet.errors", "schnet.data.file_names"},
    "schnet.batch": {
        *("schnet.errors", "schnet.data", "schnet.batch", "schnet.image_files"),
        *("schnet.parsing", "schnet.photo_parser", "schnet.file_locks"),
    },
    "schnet.batch.engines": {
        *("schnet.errors", "schnet.batch.run_file", "schnet.downloads", "schnet.weight_files"),
        *("schnet.photo_parser", "schnet.engines", "schnet.trained"),
    },
    "schnet.modeling": {*BASICS, "schnet.modeling", "schnet.score_maps"},
    "schnet.planning": {"schnet.errors", "schnet.modeling", "schnet.planning", "schnet.scaling"},
    "schnet.evaluation": {
        *("schnet.errors", "schnet.data", "schnet.evaluation"),
        *("schnet.native_types", "schnet.score_maps"),
    },
    "schnet.graph_export": {
        *("schnet.errors", "schnet.data", "schnet.modeling", "schnet.graph_export"),
        *("schnet.exported", "schnet.fingerprints", "schnet.trained", "schnet.versions"),
        *("schnet.image_files", "schnet.photo_input", "schnet.visualization"),
        "schnet.onnx_parser",
    },
    "schnet.graph_export.fitting": {
        *("schnet.errors", "schnet.data", "schnet.graph_export.metadata"),
    },
    "schnet.graph_export.metadata": set(),
    "schnet.onnx_parser": {
        *("schnet.errors", "schnet.parsing", "schnet.photo_parser"),
        *("schnet.graph_export.fitting", "schnet.graph_export.metadata"),
    },
    "schnet.parsing": {"schnet.errors", "schnet.data", "schnet.visualization"},
    "schnet.photo_input": {"schnet.errors", "schnet.data"},
    "schnet.photo_parser": {"schnet.parsing", "schnet.photo_input"},
    "schnet.ray_pipeline": {
        *("schnet.errors", "schnet.data", "schnet.image_files", "schnet.file_locks"),
        *("schnet.parsing", "schnet.photo_parser", "schnet.ray_pipeline", "schnet.versions"),
    },
    "schnet.ray_pipeline.model_choice": {
        *("schnet.errors", "schnet.downloads", "schnet.engines"),
        *("schnet.photo_parser", "schnet.remap", "schnet.trained"),
    },
    "schnet.reporting": {
        *("schnet.errors", "schnet.data", "schnet.evaluation", "schnet.visualization"),
        *("schnet.reporting", "schnet.run_config", "schnet.checkpoint"),
    },
    "schnet.restarts": {"schnet.errors"},
    "schnet.web": {
        *("schnet.errors", "schnet.data", "schnet.parsing", "schnet.photo_parser"),
        *("schnet.visualization", "schnet.web"),
    },
    "schnet.scaling": {"schnet.errors"},
    "schnet.run_config": {"schnet.errors", "schnet.data", "schnet.restarts"},
    "schnet.setup": {
        *(*BASICS, "schnet.export_file"),
        *("schnet.config", "schnet.logs", "schnet.restarts", "schnet.run_config"),
        "schnet.wandb_package",
        *("schnet.data", "schnet.modeling", "schnet.evaluation"),
    },
}
"""What a module or package may import of schnet, by longest prefix; others are not restricted."""


def _sources() -> list[Path]:
    folders = [REPOSITORY / name for name in ("projects", "tools", "datasets")]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return [*files, REPOSITORY / "train_net.py"]


def _package_sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _imports(tree: ast.AST, within: str = "schnet") -> Iterator[str]:
    """Modules of `within` that are imported anywhere in a tree, as dotted names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: name the package"
            module = node.module or ""
            # `from schnet.data import index` imports a module, or a name of one.
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
            names = [name for name in names if name == module or _is_module(name)]
        else:
            continue
        yield from (name for name in names if name == within or name.startswith(f"{within}."))


def _is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _covers(prefixes: set[str], name: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _rule(module: str) -> set[str] | None:
    """The longest entry of ALLOWED that a module falls under, or None."""
    found = [prefix for prefix in ALLOWED if _covers({prefix}, module)]
    return ALLOWED[max(found, key=len)] if found else None


@pytest.mark.parametrize("path", _package_sources(), ids=_module_name)
def test_modules_import_what_their_layer_may(path: Path) -> None:
    module = _module_name(path)
    rule = _rule(module)
    if rule is None:
        return
    foreign = {name for name in _imports(_parse(path)) if name != "schnet"}
    assert not {name for name in foreign if not _covers({*rule, module}, name)}


def test_only_entry_points_know_the_engine() -> None:
    for path in _package_sources():
        if not _covers({"schnet.engine"}, _module_name(path)):
            assert not {n for n in _imports(_parse(path)) if _covers({"schnet.engine"}, n)}, path


def test_no_cycle_among_the_modules() -> None:
    graph = {
        _module_name(p): set(_imports(_parse(p))) - {_module_name(p)} for p in _package_sources()
    }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"import cycle: {' -> '.join((*above, module))}"
        if module in done or module not in graph:
            return
        for other in sorted(graph[module]):
            # A package's own __init__ gathers its modules; they do not gather it.
            visit(other, (*above, module))
        done.add(module)

    for name in graph:
        visit(name, ())


def test_modeling_is_layered_as_designed() -> None:
    edges = {
        "meta_arch": {"sam", "clip", "head"},
        "sam": {"ftm", "sam_encoder"},
        "ftm": {"context", "derived", "ftm_kernels"},
        "ftm_kernels": {"context"},
        "sam_encoder": {
            *("attention", "context", "fast_layer", "frozen", "positions"),
            *("resample", "windows"),
        },
        "positions": {"context", "resample"},
        "resize": {"context", "resample"},
        "clip_vision": {"context", "resample"},
        "fast_layer": {
            *("attention", "context", "derived", "kernels", "positions", "tiled_attention"),
        },
        "attention": {"positions", "tiled_attention", "windows"},
        "tiled_attention": {"positions", "windows"},
        "kernels": set(),
        "clip": {"clip_fast", "clip_text", "clip_vision", "context", "frozen", "resample"},
        "clip_fast": {"clip_vision", "context", "derived", "kernels"},
        "head": {"context", "srm", "losses", "decoder"},
        "srm": {"context", "resize"},
        "losses": {"resize"},
        "decoder": {"resize"},
    }
    for path in sorted((PACKAGE / "modeling").glob("*.py")):
        if path.stem == "__init__":
            continue
        names = _imports(_parse(path), "schnet.modeling")
        others = {name.removeprefix("schnet.modeling").lstrip(".") for name in names}
        assert others <= edges.get(path.stem, set()), path.name


def test_clip_enters_sam_at_one_place() -> None:
    calls = [
        path.name
        for path in _package_sources()
        for node in ast.walk(_parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "refine"
    ]
    assert calls == ["sam.py"]


def test_importing_the_package_registers_no_data_set() -> None:
    for path in _package_sources():
        for node in _parse(path).body:
            called = node.value if isinstance(node, ast.Expr) else None
            assert not isinstance(called, ast.Call), f"{path}: a call at import, line {node.lineno}"


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_sizes_and_annotations(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        where = f"{path.name}: {node.name}"
        assert node.end_lineno is not None
        assert node.end_lineno - node.lineno + 1 <= MAX_FUNCTION_LINES, where
        assert node.returns is not None, f"{where} has no return annotation"
        spec = node.args
        named = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
        bare = [a.arg for a in named if a and a.annotation is None]
        assert not {*bare} - {"self", "cls"}, f"{where}: {bare} not annotated"


def test_every_source_defers_annotations() -> None:
    marker = "from __future__ import annotations"
    for path in _sources():
        text = path.read_text(encoding="utf-8")
        # make_env.py must parse with any Python, to say that it is too old.
        if "def " in text and path.name != "make_env.py":
            assert marker in text, path


def test_packages_are_found_and_exports_are_lazy() -> None:
    code = "import schnet, sys; assert 'torch' not in sys.modules; schnet.Parser; schnet.InputError"
    subprocess.run([sys.executable, "-c", code], check=True)
    found = find_packages(str(PACKAGE.parent), include=["schnet*"])
    assert {"schnet", "schnet.data", "schnet.engine", "schnet.evaluation"} <= set(found)
    assert {"schnet.modeling", "schnet.planning"} <= set(found)
