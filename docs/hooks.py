"""What mkdocs.yml needs besides: the home page, the reference, formulas, links into the repository.

mkdocs calls the functions named on_*. Nothing is written but the site: pages that have no file in
docs/ (README.md as index.md, one for each module) exist while it is built.
"""

import html
import importlib.util
import posixpath
import re
from pathlib import Path

from math_core import LatexError, LatexToMathML
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
HALLS = ("core", "experiments", "analysis")
FONT = "STIXTwoMath-Regular.ttf"
IMAGES = (".png", ".svg")

# [text](target) and ![text](target); no target here has blanks or brackets.
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"^[ ]*(```|~~~).*?^[ ]*\1[ ]*$|`[^`]+`", re.MULTILINE | re.DOTALL)
NAMED = re.compile(rf"`(?P<path>({'|'.join(HALLS)})/[\w/]+)\.py(::(?P<name>[A-Za-z][\w.]*))?`")
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?P<open>\\[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>',
    re.DOTALL,
)


def modules() -> dict[str, list[str]]:
    """Hall -> the names of its modules; packages that say nothing are left out."""
    found = {}
    for hall in HALLS:
        names = []
        for path in sorted((ROOT / hall).rglob("*.py")):
            if path.name == "__init__.py" and not path.read_text().strip():
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        found[hall] = sorted(names)
    return found


def page_of(module: str) -> str:
    """Where the site has a module."""
    return f"reference/{module.replace('.', '/')}.md"


def _summary(module: str) -> str:
    """First paragraph of its docstring."""
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = path.read_text().partition('"""')[2].partition('"""')[0].strip()
    return " ".join(text.partition("\n\n")[0].split())


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the reference to the navigation: halls, and within core its folders."""
    reference = ["reference/index.md"]
    for hall, names in modules().items():
        folders, section = {}, []
        for name in names:
            _, _, rest = name.partition(".")
            folder, dot, _ = rest.partition(".")
            if dot or any(other.startswith(f"{name}.") for other in names):
                folders.setdefault(folder, []).append({name: page_of(name)})
            else:
                section.append({name: page_of(name)})
        section += [{f"{hall}.{folder}": pages} for folder, pages in folders.items()]
        reference.append({f"{hall}/": section})
    config.nav.append({"Reference": reference})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages without a file, the pictures that pages show, and the font."""
    added = {"index.md": (ROOT / "README.md").read_text()}
    lines = ["# Reference", "", "From the docstrings of the code, one page for each module."]
    for hall, names in modules().items():
        lines += ["", f"## {hall}/", "", "| module | what it is |", "| --- | --- |"]
        for name in names:
            added[page_of(name)] = f"---\ntitle: {name}\n---\n\n::: {name}\n"
            at = posixpath.relpath(page_of(name), "reference")
            lines.append(f"| [{name}]({at}) | {_summary(name).replace('|', '/')} |")
    added["reference/index.md"] = "\n".join(lines) + "\n"
    for uri, content in added.items():
        files.append(File.generated(config, uri, content=content))

    sources = {"README.md": "", **{f"docs/{f.name}": "docs" for f in ROOT.glob("docs/*.md")}}
    for name, folder in sources.items():
        for link in LINK.finditer(CODE.sub("", (ROOT / name).read_text())):
            path = posixpath.normpath(posixpath.join(folder, link["target"]))
            uri = f"files/{path}"
            if path.endswith(IMAGES) and (ROOT / path).is_file() and uri not in files.src_uris:
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))

    spec = importlib.util.find_spec("ziamath")
    if spec is None:
        raise PluginError(f"ziamath, which {FONT} comes with, is not installed")
    font = Path(spec.origin).with_name("fonts") / FONT
    files.append(File.generated(config, f"assets/{FONT}", abs_src_path=str(font)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that are right in the repository become links of the site.

    Pages and pictures of the site are linked, other files of the repository named. A target that
    does not exist is left as it is, which fails a strict build. `path.py::name` leads to its place
    in the reference.
    """
    uri = page.file.src_uri
    if uri.startswith("reference/"):
        return markdown
    page.meta["hide"] = ["navigation"]  # a column with nothing but the page's own name
    folder = "" if uri == "index.md" else "docs"

    def link(found: re.Match) -> str:
        target, hash_, anchor = found["target"].partition("#")
        if not target or ":" in target:
            return found[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        there = f"files/{path}" if path.endswith(IMAGES) else path.removeprefix("docs/")
        if path == "README.md":
            there = "index.md"
        if there in files.src_uris and (there != path or path == "index.md"):
            return f"{found['image']}[{found['text']}]({there}{hash_}{anchor})"
        if (ROOT / path).exists():
            same = found["text"].strip("`/") == path
            return f"`{path}`" if same else f"{found['text']} (`{path}`)"
        return found[0]

    def reference(found: re.Match) -> str:
        module = found["path"].replace("/", ".")
        if page_of(module) not in files.src_uris:
            return found[0]
        anchor = f"#{module}.{found['name']}" if found["name"] else ""
        return f"[{found[0]}]({page_of(module)}{anchor})"

    parts, last = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(link, markdown[last : code.start()]), NAMED.sub(reference, code[0])]
        last = code.end()
    return "".join([*parts, LINK.sub(link, markdown[last:])])


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """TeX -> MathML, which browsers draw by themselves. What cannot be converted fails a build."""
    converter = LatexToMathML(fancy_error=False)

    def mathml(found: re.Match) -> str:
        tex = html.unescape(found["tex"]).strip()
        try:
            return converter.convert_with_local_state(tex, displaystyle=found["open"] == "\\[")
        except LatexError as error:
            raise PluginError(f"{page.file.src_uri}: {tex}: {error}") from error

    return FORMULA.sub(mathml, content)
