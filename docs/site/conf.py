"""How Sphinx makes a site of docs/, which is written to be read in the repository as well.

Navigation is what the README of each folder links to, in its order, and then what lies beside it; so
no page has to be named twice. Links that leave docs/ lead to the repository. Called by build.
"""

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
REPOSITORY = "https://github.com/nantian-gw/dataplane/blob/main"
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")

project = "Nantian Gateway"
version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
release = version
copyright = "the authors of Nantian Gateway, Apache License 2.0"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "README"
exclude_patterns = ["site"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"Nantian Gateway {version}"
html_copy_source = False
highlight_language = "none"
templates_path = ["templates"]
# Examples are cut short and hold placeholders, which no lexer likes.
suppress_warnings = ["misc.highlighting_failure"]


def leads_out(path, text):
    """The text with links out of docs/ turned to the repository; what is not there is left, and found."""

    def turned(match):
        target = (path.parent / match[1]).resolve()
        if "://" in match[1] or target.is_relative_to(DOCS) or not target.exists():
            return match[0]
        return f"]({REPOSITORY}/{target.relative_to(ROOT)}{match[2] or ''})"

    return LINK.sub(turned, text)


def contents(path, text):
    """Hidden tables of contents of the folder that this README stands in, one for each of its headings."""
    here = path.parent
    pages = [page.name for page in sorted(here.glob("*.md")) if page.name != "README.md"]
    pages += [f"{page.parent.name}/README.md" for page in sorted(here.glob("*/README.md"))]
    tables = ""
    for part in text.split("\n## ") + ["\n" + " ".join(f"]({page})" for page in pages)]:
        linked = dict.fromkeys(match[1] for match in LINK.finditer(part))
        own = [page for page in linked if page in pages]
        pages = [page for page in pages if page not in own]
        caption = f":caption: {part.splitlines()[0]}\n" if path.parent == DOCS and part.splitlines()[0] else ""
        if own:
            tables += "\n```{toctree}\n:hidden:\n" + caption + "\n" + "\n".join(own) + "\n```\n"
    return tables


def read(app, name, source):
    path = DOCS / f"{name}.md"
    more = contents(path, source[0]) if path.name == "README.md" else ""
    source[0] = leads_out(path, source[0]) + more


def setup(app):
    app.connect("source-read", read)
    # The name that browsers and servers look for.
    app.connect("html-collect-pages", lambda app: [("index", {}, "redirect.html")])
    return {"parallel_read_safe": True}
