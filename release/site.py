"""Pages of other folders on the documentation site: a hook of mkdocs, see mkdocs.yml.

Pages stand where their subject is (`data/README.md`, `examples/birds.md`), and link each other as
files of the checkout. The site takes them in under these paths, and its links follow; a link to
code becomes plain text, as the site holds no code.
"""

import pathlib
import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Besides docs/, from the root of the checkout.
PAGES = (
    *("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
    *("data/README.md", "tuning/README.md", "serving/README.md", "release/README.md"),
    *("benchmarks/README.md", "examples/README.md"),
    *(f"examples/{name}.md" for name in ("birds", "posters", "tiktok", "small", "context")),
)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_ERROR = re.compile(r"^\|.*\{\{node .*$", re.MULTILINE)
_FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Takes in the pages of other folders."""
    for name in PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the checkout to links between pages of the site."""
    here = page.file.src_uri
    known = {file.src_uri for file in files}
    # What TensorFlow says of a failed op is no reference to a page.
    markdown = _ERROR.sub(lambda line: line[0].replace("[", "\\["), markdown)
    parts = _FENCE.split(markdown)
    return "".join(
        part if part.startswith("```") else _LINK.sub(lambda found: link(found, here, known), part)
        for part in parts
    )


def link(found: re.Match[str], here: str, known: set[str]) -> str:
    """One link of a page as the site wants it.

    Args:
      found: a match of `[text](target)`.
      here: the page's path on the site.
      known: the paths of all pages and pictures.
    """
    mark, text, target = found.groups()
    if re.match(r"\w+:|#", target):
        return found[0]
    path, sign, anchor = target.partition("#")
    folder = posixpath.dirname(here if here in PAGES else f"docs/{here}")
    wanted = posixpath.normpath(posixpath.join(folder, path))
    wanted = "index.md" if wanted == "README.md" else wanted.removeprefix("docs/")
    if wanted not in known:
        return text
    near = posixpath.relpath(wanted, posixpath.dirname(here) or ".")
    return f"{mark}[{text}]({near}{sign}{anchor})"
