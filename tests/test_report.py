"""The report of an empty, a partial and a full folder of results, opened in a real browser."""

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_studies import write

from analysis import all as everything
from analysis import load as module
from analysis import report, table_fd_range
from analysis.judging import claims
from core.errors import Refused
from experiments.overrides import REFERENCE, parse

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SMOKE = ("scale=smoke", "seeds=[0,1]")
browser = pytest.mark.skipif(
    BROWSER is None and not os.environ.get("BROWSER_MUST_BE_THERE"),
    reason="there is no chromium; Debian's package is called so",
)


def built(results: Path, *words: str) -> Path:
    """The report of what is there, as HTML."""
    return next(
        path
        for path in report.build(parse([f"results={results}", *words], grid="single"))
        if path.suffix == ".html"
    )


def opened(path: Path, folder: Path) -> tuple[str, list[str]]:
    """The page as the browser has it once its scripts have run, and what its console says."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        [BROWSER, *words, f"--user-data-dir={folder}", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Path:
    """A results folder, with nothing to fall back to."""
    monkeypatch.setattr(module, "REFERENCE", tmp_path / "none")
    return tmp_path / "results"


@pytest.fixture(params=["empty", "partial", "full"], scope="module")
def page(request, tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp(request.param)
    if request.param == "full":
        for name in ("runs", "figures", "tables"):
            (results / name).symlink_to(REFERENCE / name)
        return built(results, "seeds=[0,1,2]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REFERENCE", results / "none")
        if request.param == "partial":
            write(results, "schedule_ablation", holes=3)
            write(results, "model_mix")
        return built(results, *SMOKE)


@browser
def test_a_browser_opens_it_without_a_word_in_its_console(page, tmp_path):
    dom, console = opened(page, tmp_path / "profile")
    assert console == []
    assert len(re.findall(r'class="card" id="claim-\d+"', dom)) == len(claims())


@browser
@pytest.mark.parametrize("width", [400, 1280])
def test_it_is_as_wide_as_its_window(page, tmp_path, width):
    """On a phone too, where what is wider than the page (tables) scrolls by itself.

    In a frame of the page's own width: headless, the window has one of at least 500.
    """
    frame = tmp_path / "frame.html"
    wide = "f.contentDocument.documentElement.scrollWidth"
    hidden = "f.contentDocument.querySelector('.glance td.v').getBoundingClientRect().right"
    frame.write_text(
        f'<iframe id="f" width="{width}" height="800" srcdoc="{html.escape(page.read_text())}">'
        f"</iframe><script>f.onload = () => document.title = {wide} + ' ' + {hidden}</script>"
    )
    dom, _ = opened(frame, tmp_path / "profile")
    content, right = map(float, re.search("<title>(.*?) (.*?)</title>", dom).groups())
    assert content <= width and right <= width


@browser
def test_its_table_of_claims_sorts_by_number_and_back(alone, tmp_path):
    path = built(alone, *SMOKE)
    click = "<script>document.querySelector('.glance th button').click();</script>"
    for clicks, order in ((1, range(1, 47)), (2, range(46, 0, -1))):
        clicked = tmp_path / f"clicked{clicks}.html"
        clicked.write_text(path.read_text().replace("</body>", clicks * click + "</body>"))
        dom, _ = opened(clicked, tmp_path / "profile")
        assert re.findall(r'href="#claim-(\d+)"', dom) == [str(number) for number in order]


@browser
def test_the_tables_of_studies_sort_by_number_too(alone, tmp_path):
    values = ["10.2 ± 0.1", "9.8", "—", "1,037", "−3 (−4 to −2)", "4K"]
    rows = "".join(f"<tr><td>{value}</td></tr>" for value in values)
    table = f'<table id="mine"><thead><tr><th>x</th></tr></thead><tbody>{rows}</tbody></table>'
    click = "<script>document.querySelector('#mine th button').click();</script>"
    text = built(alone, *SMOKE).read_text().replace("</main>", f"{table}</main>")
    clicked = tmp_path / "clicked.html"
    clicked.write_text(text.replace("</body>", f"{click}</body>"))
    dom, console = opened(clicked, tmp_path / "profile")
    assert console == []
    found = re.findall("<td>(.*?)</td>", dom.partition('id="mine"')[2].partition("</table>")[0])
    assert found == ["−3 (−4 to −2)", "4K", "9.8", "10.2 ± 0.1", "1,037", "—"]


@browser
def test_what_sees_an_error_in_a_console_sees_one(tmp_path):
    path = tmp_path / "wrong.html"
    path.write_text("<script>nothing.of.the.kind();</script>")
    assert "ReferenceError" in " ".join(opened(path, tmp_path / "profile")[1])


def test_it_needs_no_network_and_every_picture_says_what_it_shows(page):
    text = page.read_text()
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', text) and "@import" not in text
    pictures = re.findall(r"<img [^>]*>", text)
    for picture in pictures:
        assert 'src="data:image/png;base64,' in picture
        assert len(re.search(r'alt="([^"]*)"', picture)[1]) > 40
    assert bool(pictures) == ((page.parent / "figures").exists())


def test_every_link_leads_somewhere(page):
    text = page.read_text()
    ids = set(re.findall(r'id="([^"]+)"', text))
    for link in re.findall(r'<a href="([^"]+)"', text):
        if link.startswith("#"):
            assert link[1:] in ids
        else:
            assert (page.parent / link).exists()
    twin = page.with_suffix(".md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", twin):
        assert (page.parent / link).exists()


def test_nothing_measured_is_said_with_the_command_that_measures_it(alone):
    text = html.unescape(built(alone, *SMOKE).read_text())
    for study in everything.STUDIES:
        assert f"python experiments/run.py grid={study} " in text
    assert text.count("not measured") > 40
    listed = re.findall(r"(?m)^- \*\*Claim (\d+)\*\*", (alone / "REPORT.smoke.md").read_text())
    assert sorted(map(int, listed)) == list(range(1, 47))  # each begins a line of the Markdown twin


def test_the_command_draws_everything_first(alone, monkeypatch, capsys):
    for place in (everything, report):
        monkeypatch.setattr(place, "STUDIES", ("model_mix",))
        monkeypatch.setattr(place, "OTHERS", ("plot_alpha_bar",))
    monkeypatch.setattr(table_fd_range, "main", lambda words: None)
    write(alone, "model_mix")
    report.main([f"results={alone}", *SMOKE])
    said = capsys.readouterr().out
    assert f"wrote {alone / 'REPORT.smoke.html'}" in said and "REPORT.smoke.md" in said
    text = (alone / "REPORT.smoke.html").read_text()
    assert text.count("<img ") == 3  # of the study, of its samples and of alpha_bar
    assert "Each network and both in one" in text


def test_a_grid_is_refused():
    with pytest.raises(Refused, match="all of them"):
        report.main(["grid=model_mix"])


def test_seeds_that_only_some_studies_have_are_said_to_be_theirs():
    assert report.seeds_of({"a": (0, 1)}) == "0, 1"
    studies = {"a": (0, 1, 2, 3), "b": (2, 0, 1), "c": (0,), "d": (0, 1, 2)}
    assert report.seeds_of(studies) == "0, 1, 2; 0, 1, 2, 3 in a; 0 in c"
