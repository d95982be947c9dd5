"""What the site takes from outside docs/: the log of the benchmarks, and the architecture."""

import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TAKEN = {"benchmarks/README.md": "benchmarks.md", "CONTRIBUTING.md": "architecture.md"}  # there: here
ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere in the repository, since people read them there."""
    for path, name in TAKEN.items():
        text = (ROOT / path).read_text(encoding="utf-8").replace("](../docs/", "](").replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links into the repository to its page here, or give the file's name alone where there is none."""

    def here(link: re.Match[str]) -> str:
        text, path = link[1], link[2]
        if path in TAKEN:
            return f"[{text}]({TAKEN[path]})"
        name = PurePosixPath(path).as_posix()
        return f"{text} (`{name}`)"

    return re.sub(r"\[([^\]]+)\]\(\.\./([^)#]+)\)", here, markdown)
