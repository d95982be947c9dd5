"""fastcutpaste inspect: what would be read as what."""

from pathlib import Path

import click

from fastcutpaste.cli.options import PAGES_OPTION, finish
from fastcutpaste.console import people
from fastcutpaste.images.survey import inspect_closely, survey


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("contact_sheet.png"), show_default=True,
              help="Picture with up to ten images of each part and kind.")  # fmt: skip
@PAGES_OPTION
def inspect(data: Path, out: Path, pages: bool) -> None:
    """Tell what in DATA would be read as what: a folder in a layout of published sets, a plain one, or a CSV file.

    Counts by part and kind, sizes, modes, bits, masks, brightness; images that are there twice, and what else may lead
    astray.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp"):
        raise ValueError(f"inspect --out: a picture's name required, such as contact_sheet.png, got {out}")
    from fastcutpaste.reports.contact_sheet import write_contact_sheet  # half a second to import

    found, facts = inspect_closely(survey(data, pages))
    people.print(found.headline, markup=False)
    for group, fact in facts.items():
        bright = f"  brightness {fact['brightness']:.3f} ± {fact['spread']:.3f}" if "brightness" in fact else ""
        masks = f"  {fact['masks']} masks" if fact["masks"] else ""
        kinds = f"{', '.join(fact['modes'])} of {fact['bits']} bits"
        people.print(f"{fact['images']:>6}  {group:<34}  {fact['range']} px  {kinds}{masks}{bright}", markup=False)
    for note in found.notes:
        people.print(f"note: {note}", markup=False)
    write_contact_sheet(found, out)
    people.print(f"look at {out}", markup=False)
    finish({
        "data": str(data), "layout": found.layout, "groups": facts, "notes": found.notes,
        "passed_over": [str(path) for path in found.passed_over], "contact_sheet": str(out),
    })  # fmt: skip
