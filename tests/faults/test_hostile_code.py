"""No statement of the suite runs what a file says: found in the syntax trees of its code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    p for name in ("core", "experiments", "analysis") for p in (ROOT / name).rglob("*.py")
)

NEVER = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path"),
    *("pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "shelve.open"),
    *("cloudpickle.load", "cloudpickle.loads", "dill.load", "dill.loads", "joblib.load"),
    *("pandas.read_pickle", "torch.hub.load", "torch.package.PackageImporter"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all"),
    *("yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "shutil.unpack_archive"),
}
# What may run code if its file is another than the one that is meant: each has its own guard.
GUARDED = {
    "torch.jit.load": "core/metrics/inception_networks.py",  # a known SHA-256, or the user's word
    "pickle.Unpickler": "core/data/plain_pickle.py",  # whose names are stand-ins
}


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """What an expression such as np.lib.load is called, its imports resolved; "" for others."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = dotted(node.value, names)
        return f"{before}.{node.attr}" if before else f".{node.attr}"
    return ""


def imported(tree: ast.AST) -> dict[str, str]:
    """Names in a module -> what they stand for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    names[alias.asname] = alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def findings(source: str, where: str = "x.py") -> list[str]:
    """Statements of a module that could run what a file says."""
    tree, found = ast.parse(source), []
    names = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            name = dotted(node, names)
            if name in NEVER or (name in GUARDED and GUARDED[name] != where):
                found.append(f"{where}:{node.lineno} {name}")
        if not isinstance(node, ast.Call):
            continue
        name, given = dotted(node.func, names), {k.arg: k.value for k in node.keywords}
        constant = {k: getattr(v, "value", "other") for k, v in given.items()}
        wrong = {
            "torch.load": constant.get("weights_only") is not True,
            "numpy.load": constant.get("allow_pickle", False) is not False,
            "numpy.lib.format.read_array": constant.get("allow_pickle", False) is not False,
            "yaml.load": not node.args[1:] or ast.unparse(node.args[1]) != "Bounded",
        }.get(name, False)
        wrong |= name.endswith((".extractall", ".extract")) and constant.get("filter") != "data"
        wrong |= constant.get("shell", False) is not False
        if wrong:
            found.append(f"{where}:{node.lineno} {ast.unparse(node)}")
    return found


BAD = [
    "import torch as t\nt.load('x')",
    "import torch\ntorch.load('x', weights_only=False)",
    "from torch import load\nload('x', 'cpu')",
    "import torch\ntorch.jit.load('x')",
    "import pickle\npickle.loads(b'')",
    "from pickle import Unpickler as U\nU(file).load()",
    "import numpy as np\nnp.load('x', allow_pickle=True)",
    "import numpy as np\nnp.load('x', allow_pickle=some)",
    "from numpy.lib import format as npy\nnpy.read_array(f, allow_pickle=True)",
    "import yaml\nyaml.load('x', yaml.Loader)",
    "import yaml\nyaml.load('x', Loader=yaml.UnsafeLoader)",
    "import yaml\nyaml.unsafe_load('x')",
    "value = eval('1 + 1')",
    "run = exec\nrun('x')",
    "archive.extractall('x')",
    "import subprocess\nsubprocess.run('x', shell=True)",
]


@pytest.mark.parametrize("source", BAD)
def test_each_dangerous_statement_would_be_found(source):
    assert findings(source)


def test_statements_that_only_look_like_them_are_not_found():
    fine = "import torch, numpy as np\nnetwork.eval()\nframe.eval('a - b')\nnp.load('x')\n"
    assert not findings(fine + "torch.load('x', weights_only=True)\nre.compile('x')")


def test_no_statement_of_the_suite_runs_what_a_file_says():
    assert len(FILES) > 100
    found = [f for p in FILES for f in findings(p.read_text(), p.relative_to(ROOT).as_posix())]
    assert found == []
