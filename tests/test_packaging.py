"""The package holds what the tree holds, works once installed, and its version statements agree."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import longreel

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CORE = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
TEST = [Requirement(line) for line in PROJECT["project"]["optional-dependencies"]["test"]]
OUTSIDE = {"tests", "benchmarks", "docs", "examples"}  # folders of the tree that are no part of the package
HEAVY = {"torch", "numpy", "h5py", "faiss", "transformers", "diffusers", "sklearn", "scipy", "av", "decord"}
SECURITY_FLOORS = {"torch": "2.10", "transformers": "5.5.0", "diffusers": "0.38.0"}


def ignored(name: str, patterns: list[str]) -> bool:
    parts = PurePosixPath(name).parts
    return any(
        fnmatch.fnmatch(part, pattern.strip("/"))
        for pattern in patterns
        for part in (parts[:1] if pattern.startswith("/") else parts)
    )


def tree_files() -> set[str]:
    """Names, with ``/``, of all files a commit would hold; in an unpacked sdist, of all files that were not built."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        return {name for name in listed if (ROOT / name).is_file()}
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")] + ["/PKG-INFO", "/setup.cfg"]
    names = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file())
    return {name for name in names if not ignored(name, patterns)}


def package_folders(files: set[str]) -> set[str]:
    """Folders with an ``__init__.py``, as dotted package names."""
    folders = (PurePosixPath(name).parent.parts for name in files if PurePosixPath(name).name == "__init__.py")
    return {".".join(("longreel", *parts)) for parts in folders if not OUTSIDE.intersection(parts)}


def package_files(files: set[str]) -> set[str]:
    """The files of the tree that belong in the package: modules and the data beside them."""
    tops = {name.split(".")[1] for name in package_folders(files) if "." in name}
    at_root = {name for name in files if "/" not in name and (name.endswith(".py") or name == "py.typed")}
    return at_root | {name for name in files if name.split("/")[0] in tops and "/" in name}


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Standard output of a command that must succeed, with ``path`` as its PYTHONPATH."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (
        f"{command} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout


@dataclass(frozen=True)
class Built:
    """An sdist and the wheel made from it, with the files each holds."""

    sdist: set[str]
    wheel: set[str]
    wheel_path: Path
    tree: Path  # what both were made from


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    # A name that is no identifier: nothing may depend on what the checkout is called.
    copy, out = tmp_path_factory.mktemp("my-repo.v2"), tmp_path_factory.mktemp("dist")
    for name in tree_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy, cwd=out)
    (sdist_path,), (wheel_path,) = out.glob("*.tar.gz"), out.glob("*.whl")
    with tarfile.open(sdist_path) as archive:
        sdist = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    with zipfile.ZipFile(wheel_path) as archive:
        return Built(sdist=sdist, wheel=set(archive.namelist()), wheel_path=wheel_path, tree=copy)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder with nothing but the installed wheel."""
    target = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index",
        "--target", target, built.wheel_path, cwd=target)  # fmt: skip
    return target


def test_the_packages_of_pyproject_are_the_folders_with_an_init():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == package_folders(tree_files())


def test_every_module_at_the_top_is_banned_as_an_absolute_import():
    banned = PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    tops = {name.split("/")[0].removesuffix(".py") for name in package_files(tree_files())} - {"__init__", "py.typed"}
    assert {name: entry["msg"] for name, entry in banned.items()} == {name: f"longreel.{name}" for name in tops}


def test_the_wheel_holds_exactly_the_package(built: Built):
    code = {name for name in built.wheel if ".dist-info/" not in name}
    assert code == {f"longreel/{name}" for name in package_files(tree_files())}


def test_the_wheel_holds_no_tests_and_no_tools(built: Built):
    stray = [name for name in built.wheel if re.search(r"(^|/)(conftest|setup|test_\w+)\.py$", name)]
    assert stray == []
    assert not [name for name in built.wheel if OUTSIDE.intersection(PurePosixPath(name).parts)]


def test_the_sdist_holds_the_whole_tree(built: Built):
    made = {name for name in built.sdist if ".egg-info/" in name or name in {"PKG-INFO", "setup.cfg"}}
    assert built.sdist - made == tree_files(), "a new file or folder outside the package belongs in MANIFEST.in"


def test_the_wheel_states_version_licence_and_command(built: Built):
    with zipfile.ZipFile(built.wheel_path) as archive:
        folder = f"longreel-{longreel.__version__}.dist-info"
        metadata = archive.read(f"{folder}/METADATA").decode().splitlines()
        assert "longreel = longreel.cli:main" in archive.read(f"{folder}/entry_points.txt").decode()
        assert b"Apache License" in archive.read(f"{folder}/licenses/LICENSE")
    assert {"Name: longreel", f"Version: {longreel.__version__}", "License-Expression: Apache-2.0"} <= set(metadata)


def test_the_installed_package_is_the_one_imported_elsewhere(installed: Path, tmp_path: Path):
    where = run(sys.executable, "-c", "import longreel; print(longreel.__file__)", cwd=tmp_path, path=installed)
    assert Path(where.strip()) == installed / "longreel" / "__init__.py"


def test_an_editable_install_imports_the_checkout_whatever_its_name(built: Built, tmp_path: Path):
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index",
        "--no-build-isolation", "--ignore-installed", "--prefix", tmp_path, "--editable", built.tree,
        cwd=tmp_path)  # fmt: skip
    (packages,) = tmp_path.glob("lib/python*/site-packages")
    code = f"import site; site.addsitedir({str(packages)!r}); import longreel; print(longreel.__file__)"
    where = run(sys.executable, "-I", "-S", "-c", code, cwd=tmp_path)
    assert Path(where.strip()) == built.tree / "__init__.py"


def test_the_installed_command_line_answers_help_and_version(installed: Path, tmp_path: Path):
    assert (installed / "longreel" / "cli.py").is_file(), "cli.py is missing: the `longreel` command has nothing to run"
    module = (sys.executable, "-m", "longreel.cli")
    assert "Usage" in run(*module, "--help", cwd=tmp_path, path=installed)
    assert longreel.__version__ in run(*module, "--version", cwd=tmp_path, path=installed)
    command = installed / "bin" / "longreel"
    assert longreel.__version__ in run(command, "--version", cwd=tmp_path, path=installed)


def test_importing_longreel_imports_nothing_else(installed: Path, tmp_path: Path):
    code = "import sys; before = set(sys.modules); import longreel; print(*sorted(set(sys.modules) - before))"
    assert run(sys.executable, "-c", code, cwd=tmp_path, path=installed).split() == ["longreel"]


def test_importing_the_command_line_imports_nothing_heavy(installed: Path, tmp_path: Path):
    code = "import sys, longreel.cli; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(run(sys.executable, "-c", code, cwd=tmp_path, path=installed).split())
    assert "longreel" in loaded
    assert loaded & HEAVY == set()


def constraints() -> dict[str, str]:
    """Name to exact version, of every line of constraints.txt that is not a comment."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_constraints_are_plain_versions():
    versions = constraints()
    assert len(versions) > len(CORE) + len(TEST)
    assert {name: version for name, version in versions.items() if not re.fullmatch(r"\d+(\.\w+)*", version)} == {}


@pytest.mark.parametrize("requirement", CORE + TEST, ids=lambda requirement: requirement.name)
def test_a_requirement_is_a_lower_bound_that_the_constraints_satisfy(requirement: Requirement):
    assert [part.operator for part in requirement.specifier] == [">="]
    pinned = constraints().get(canonicalize_name(requirement.name))
    assert pinned is not None, f"{requirement.name} has no line in constraints.txt"
    assert requirement.specifier.contains(pinned)


@pytest.mark.parametrize(("name", "floor"), SECURITY_FLOORS.items())
def test_versions_with_known_holes_cannot_be_installed(name: str, floor: str):
    (bound,) = [part.version for requirement in CORE if requirement.name == name for part in requirement.specifier]
    assert bound == floor


def test_the_readme_names_the_torch_of_pyproject_and_constraints():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    stated = set(re.findall(r"(?i)\b(?:py)?torch`?\s*(?:[=<>~]=)?\s*(\d+(?:\.\d+)+)", text))
    assert stated, "README.md must say which torch is needed, for instance `torch>=2.10`"
    assert stated <= {SECURITY_FLOORS["torch"], constraints()["torch"]}


def test_nothing_depends_on_torchvision():
    word = "torchvision"
    for name in ("pyproject.toml", "constraints.txt", "Makefile", ".ci/run", ".pre-commit-config.yaml"):
        assert word not in (ROOT / name).read_text(encoding="utf-8"), name
    wanted = re.compile(rf"^\s*(import|from) {word}\b|pip3? install [^\n]*{word}", re.MULTILINE)
    texts = [name for name in tree_files() if name.endswith((".py", ".md"))]
    assert [name for name in texts if wanted.search((ROOT / name).read_text(encoding="utf-8"))] == []
