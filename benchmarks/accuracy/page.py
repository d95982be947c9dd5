"""docs/accuracy.md: the tables of the accuracy study, drawn from the rows alone; the first is README.md's, too."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import isnan

from benchmarks.accuracy.record import ENSEMBLE, Outcome
from benchmarks.accuracy.studies import COMPARED, PAPER, STUDIES, Compared
from benchmarks.plots import ROOT, replace_between
from fastcutpaste.scoring.ensemble import spread

_COLUMNS = ("data", "row", "budget", "seeds", "image AUROC", "pixel AUROC", "PRO", "the paper", "training, s",
            "score, ms", "device")  # fmt: skip
PAGE, README, RECIPES = ROOT / "docs" / "accuracy.md", ROOT / "README.md", ROOT / "docs" / "recipes.md"


def write_page(outcomes: Sequence[Outcome]) -> None:
    """Put the tables of all rows between the marks of the page; what stands around them is written by hand."""
    tables = [_table(study, _of(study, outcomes, planted=False)) for study in STUDIES]
    planted = {study: _of(study, outcomes, planted=True) for study in STUDIES}
    tables += [
        _table(study, rows, ", on planted defects, to choose settings by") for study, rows in planted.items() if rows
    ]
    for path, mark in ((PAGE, "compared"), (README, "accuracy")):
        replace_between(path, mark, compared_table(outcomes))
    replace_between(PAGE, "rows", "\n".join(tables))
    replace_between(RECIPES, "family", family_table(outcomes))


def compared_table(outcomes: Sequence[Outcome]) -> str:
    """Set our rows beside published ones: of each row the device with most seeds, of these the latest."""
    columns = ("set", "what", "figure", "ours, from scratch", "published", "split", "budget", "seeds", "device")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for line in COMPARED:
        group = _best_of(line, outcomes)
        if group:
            category, budget = line.key[3:]
            figure = line.figure.replace("_auroc", " AUROC")
            ours = _figure(getattr(one, line.figure) for one in group)
            seeds = group[0].command.removeprefix("of seeds ") if group[0].seed == ENSEMBLE else str(len(group))
            cells = [category, line.what, figure, ours, line.published, line.split, budget, seeds, group[0].device]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def family_table(outcomes: Sequence[Outcome]) -> str:
    """Set what a network learns from side by side: image AUROC by set, of the budget and device with most rows."""
    rows = _of("family", outcomes, planted=False)
    if not rows:
        return "Not measured yet.\n"
    (budget, device), _ = Counter((one.budget, one.device) for one in rows).most_common(1)[0]
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in rows:
        if (one.budget, one.device) == (budget, device):
            published = ", published split" * one.data.endswith("published split")
            found[one.row][one.category + published].append(one.image_auroc)
    sets = {name: max(len(of_row[name]) for of_row in found.values() if name in of_row)
            for name in sorted({name for of_row in found.values() for name in of_row})}  # fmt: skip
    headers = [f"{name}, {seeds} seed{'s' * (seeds != 1)}" for name, seeds in sets.items()]
    lines = [f"| {budget}, {device} | {' | '.join(headers)} |", "|---" * (1 + len(sets)) + "|"]
    means = {
        (row, name): sum(values) / len(values)
        for row, of_row in found.items()
        for name, values in of_row.items()
        if len(values) == sets[name]  # what lacks seeds cannot lead
    }
    best = {name: max(value for (_, of), value in means.items() if of == name) for name in sets}
    for row in [name for study in STUDIES["family"] for name in study.rows if name in found]:
        cells = [_figure(found[row].get(name, [])) for name in sets]
        cells = [f"**{cell}**" if means.get((row, name)) == best[name] else cell
                 for name, cell in zip(sets, cells, strict=True)]  # fmt: skip
        lines.append(f"| {row} | {' | '.join(cells)} |")
    names = [_best_planted(name.partition(", ")[0], (budget, device), outcomes) for name in sets]
    if any(names):
        cells = [
            f"{row}: {_figure(found[row].get(name, []))}" if row else "" for row, name in zip(names, sets, strict=True)
        ]
        lines.append(f"| *chosen on planted defects* | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _best_planted(category: str, how: tuple[str, str], outcomes: Sequence[Outcome]) -> str:
    """Give the row of the family that is best on defects planted in held-out normal images; "" if none is measured."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in _of("family", outcomes, planted=True):
        if one.category == f"{category}, planted" and (one.budget, one.device) == how:
            found[one.row].append(one.image_auroc)
    return max(found, key=lambda row: sum(found[row]) / len(found[row]), default="")


def _best_of(line: Compared, outcomes: Sequence[Outcome]) -> list[Outcome]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        if (one.study, one.row, one.data, one.category, one.budget) == line.key:
            groups[one.device].append(one)
    return max(groups.values(), key=lambda group: (len(group), max(one.date for one in group)), default=[])


def _of(study: str, outcomes: Sequence[Outcome], planted: bool) -> list[Outcome]:
    return [one for one in outcomes if one.study == study and ("planted" in one.category) == planted]


def _table(study: str, outcomes: Sequence[Outcome], what: str = "") -> str:
    if not outcomes:
        return f"### {study.capitalize()}\n\nNot measured yet.\n"
    groups: dict[tuple[str, str, str, str, str], list[Outcome]] = defaultdict(list)
    for one in outcomes:
        groups[one.data, one.category, one.row, one.budget, one.device].append(one)
    order = [name for row in STUDIES[study] for one in row.rows for name in (one, f"{one}, ensemble")]
    lines = [f"### {study.capitalize()}{what}", ""]
    lines.append(f"| {' | '.join(_COLUMNS)} |")
    lines.append("|---" * len(_COLUMNS) + "|")
    averages: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for (data, category, row, budget, device), group in sorted(groups.items(), key=lambda item: _place(item[0], order)):
        averages[data, row, budget, device].append(spread([one.image_auroc for one in group])["mean"])
        cells = [f"{data}, {category}", row, budget + _steps(budget, group), str(len(group))]
        cells += [_figure(getattr(one, name) for one in group) for name in ("image_auroc", "pixel_auroc", "pro_auc")]
        cells.append(PAPER.get((study, row, category), ""))
        cells += [
            _mean((one.train_s for one in group), 0),
            _mean((one.score_ms for one in group), 1),
            device,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for (data, row, budget, device), values in averages.items():
        if len(values) > 1 and not what:
            mean = 100 * sum(values) / len(values)
            cells = [
                f"{data}, mean of {len(values)}",
                row,
                budget,
                "",
                f"{mean:.1f}",
                "",
                "",
                PAPER.get((study, row, "mean"), ""),
                "",
                "",
                device,
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _steps(budget: str, group: Sequence[Outcome]) -> str:
    """Tell how many steps the time was enough for, from the fewest to the most."""
    if budget.endswith("steps") or budget == "none":
        return ""
    few, many = min(one.steps for one in group), max(one.steps for one in group)
    return f" ({few} steps)" if few == many else f" ({few} to {many} steps)"


def _place(key: tuple[str, str, str, str, str], order: Sequence[str]) -> tuple[object, ...]:
    data, category, row, budget, device = key
    return data, category, order.index(row) if row in order else len(order), budget, device


def _mean(values: Iterable[float], digits: int) -> str:
    """Give the mean of what was measured; nan where other work ran beside it."""
    found = [value for value in values if not isnan(value)]
    return f"{sum(found) / len(found):.{digits}f}" if found else ""


def _figure(values: Iterable[float]) -> str:
    """Give mean ± standard error in per cent."""
    found = [value for value in values if not isnan(value)]
    if not found:
        return ""
    about = spread([100 * value for value in found])
    return f"{about['mean']:.1f}" + ("" if isnan(about["standard_error"]) else f" ± {about['standard_error']:.1f}")
