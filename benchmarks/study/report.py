"""A study as Markdown, HTML and a picture: table, differences, and what they say in words, all made from the runs."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from cycledistill.files import atomic_write
from cycledistill.insight.pages import render

from .adaptive import SHARE, table
from .analysis import Difference, differences, readings, success
from .errors import StudyError
from .plan import Plan
from .results import Record
from .starts import left_out

_SUCCESS = {
    "reached": "**reached**",
    "not reached": "**not reached**",
    "not decided": "not decided, for runs are missing or diverged",
    "not judged": "not judged, for no comparison stands for it",
}


def write_report(plan: Plan, runs: Sequence[Record], folder: Path) -> Path:
    """Write NAME.md, NAME.html and NAME.svg beside the runs; the Markdown file's path.

    Raises:
        StudyError: There are no runs.
    """
    if not runs:
        raise StudyError(f"{plan.name} has no runs yet: python benchmarks/study run {plan.name}")
    text = markdown(plan, runs)
    # Markup in a plan's words is text: Markdown lets it through where it is not told otherwise.
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    page = render(Path(__file__).with_name("report.html.jinja"), title=plan.name, body=Markup(body))
    picture = folder / f"{plan.name}.svg"
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": plan.name}):  # text as text, and the same file each time
        atomic_write(picture, lambda file: draw(plan, runs).savefig(file, metadata={"Date": None}))
    atomic_write(folder / f"{plan.name}.html", lambda file: file.write_text(page, encoding="utf-8"))
    atomic_write(folder / f"{plan.name}.md", lambda file: file.write_text(text, encoding="utf-8"))
    return folder / f"{plan.name}.md"


def markdown(plan: Plan, runs: Sequence[Record]) -> str:
    """The report's text."""
    by_arm = {arm: [run for run in runs if run["arm"] == arm] for arm in plan.arms}
    found = differences(plan, runs)
    training = plan.training
    parts = [
        f"# {plan.name}",
        plan.question.strip(),
        f"**What would count as a yes**, written down before the runs: {plan.success.strip()}",
        f"{len(plan.seeds)} seeds; {training.steps} steps of {training.batch}, AdamW at "
        f"{training.rate:g}; {'; '.join(sorted({run['device'] for run in runs}))}.",
        *_state(plan, runs),
        "## What was found",
        f"What was to count as a yes: {_SUCCESS[success(plan, found)]}.{_not_judged(plan)}",
        "\n".join(map(words, found)),
        "## Arms",
        _arms_table(plan, by_arm),
    ]
    for metric in plan.metrics:
        parts += [f"## {metric}, % by cycles", _metric_table(plan, by_arm, metric)]
    parts += [f"![{', '.join(plan.metrics)} against the cost of an answer]({plan.name}.svg)", "## Differences"]
    parts += [_differences_table(found)]
    parts += [
        "Differences are paired by seed; intervals are of 95 % (t distribution), not corrected; p is corrected after "
        "Holm for the number of registered comparisons (of those added later: for the number of all), and verdicts go "
        "by it (below .05), once all seeds are there. Costs are multiply-accumulates, attention's products included.",
        *_reasons(plan),
    ]
    return "\n\n".join(parts) + "\n"


def excerpt(plan: Plan, runs: Sequence[Record], curves: Sequence[Record] = ()) -> str:
    """For a page: what is missing, the first metric of every arm, what was found, and adaptive inference."""
    by_arm = {arm: [run for run in runs if run["arm"] == arm] for arm in plan.arms}
    if not runs:
        raise StudyError(f"{plan.name} has no runs yet: python benchmarks/study run {plan.name}")
    base = next(own[0] for own in by_arm.values() if own)
    rows = [("arm", "weights", "training cost, time", "seeds", *(f"@{exit}" for exit in plan.exits))]
    for arm, own in by_arm.items():
        if own:
            cells = [_spread(list(readings(own, arm, exit, plan.metrics[0]).values())) for exit in plan.exits]
            says = f"{plan.arms[arm].says} (`{arm}`{', added' if plan.arms[arm].added else ''})"
            cost = own[0]["training_macs"] / base["training_macs"]
            costs = f"{cost:.2f}, {_time(own, by_arm[base['arm']])}"
            rows.append((says, f"{own[0]['parameters']:,}", costs, str(len(own)), *cells))
    title = f"{plan.metrics[0]}, % by cycles at inference, mean ± standard deviation over seeds:"
    found = differences(plan, runs)
    verdict = _SUCCESS[success(plan, found)]
    reached = f"What was to count as a yes ({plan.success.strip()}): {verdict}.{_not_judged(plan)}"
    adaptive = (
        [f"Adaptive inference, at most {SHARE:.0%} of the last exit's cost:", table(plan, curves)] if curves else []
    )
    return "\n\n".join([*_state(plan, runs), title, _table(rows), reached, "\n".join(map(words, found)), *adaptive])


def fill(page: str, reports: Mapping[str, str]) -> str:
    """A page with the excerpts in their places: from ``<!-- study NAME -->`` to ``<!-- end -->``.

    Raises:
        StudyError: It has no place for one of them.
    """
    for name, text in reports.items():
        place = re.compile(rf"(<!-- study {re.escape(name)} -->\n)(?:(?!<!-- study ).)*?(<!-- end -->)", re.DOTALL)
        page, count = place.subn(lambda found, text=text: f"{found[1]}\n{text}\n\n{found[2]}", page)  # type: ignore[misc]
        if count != 1:
            raise StudyError(f"the page has {count} places for {name}: `<!-- study {name} -->` ... `<!-- end -->`")
    return page


def words(found: Difference) -> str:
    """A difference as a sentence."""
    comparison = found.comparison
    claim = comparison.claim[0].upper() + comparison.claim[1:]
    answer = {"yes": "**yes**", "no": "**no**, the other is higher"}.get(found.verdict, found.verdict)
    if found.diverged:
        answer += f", for a side diverged at seed {', '.join(map(str, found.diverged))}"
    sides = f"`{comparison.left}` less `{comparison.right}`" + (f", {comparison.metric}" if comparison.metric else "")
    added = f" (Added after the first runs: {comparison.added}.)" if comparison.added else ""
    if len(found.values) < 2:
        return f"- {claim}: {answer}; {sides}: {len(found.values)} seeds of both so far.{added}"
    p = f"; p {_p(found.corrected)}" if found.verdict in ("yes", "no", "not told apart") else ""
    return (
        f"- {claim}: {answer}. {sides}: {found.mean:+.1f} points ({found.low:+.1f} to {found.high:+.1f}), higher in "
        f"{found.wins} of {len(found.values)} seeds{p}.{added}"
    )


def _says(plan: Plan, arm: str) -> str:
    """An arm in words, and that it was added."""
    own = plan.arms[arm]
    return own.says + (f" (added after the first runs: {own.added})" if own.added else "")


def _not_judged(plan: Plan) -> str:
    return f" Not judged: {plan.not_judged.strip()}" if plan.not_judged else ""


def _reasons(plan: Plan) -> list[str]:
    """Which baselines arms go without, and why."""
    lines = [f"- `{name}`, no {kind}: {why}" for name, arm in plan.arms.items() for kind, why in arm.without.items()]
    return ["Baselines that are left out:\n\n" + "\n".join(lines)] if lines else []


def _state(plan: Plan, runs: Sequence[Record]) -> list[str]:
    """What is missing or went wrong; nothing where all is well."""
    done = {(run["arm"], run["seed"]) for run in runs}
    out = left_out(plan, runs)
    expected = [(arm, seed) for seed in plan.seeds for arm in plan.arms if (arm, seed) not in out]
    missing = [each for each in expected if each not in done]
    diverged = [f"{run['arm']} of seed {run['seed']}" for run in runs if run["diverged"]]
    unequal = [f"{run['arm']} of seed {run['seed']}" for run in runs if run["deployed_equal"] is False]
    stopped = [f"{arm} of seed {seed}" for arm, seed in out]
    without = "Left out, for the run that they start from diverged"
    lines = {"Diverged": diverged, without: stopped, "Deployed model not bit-equal": unequal}
    said = [f"{what}: {', '.join(which)}." for what, which in lines.items() if which]
    count = f"{len(missing)} of {len(expected)} runs"
    interim = f"Not finished: {count} are missing; where one side lacks a seed nothing is decided."
    return ([interim] if missing else []) + said


def _arms_table(plan: Plan, by_arm: Mapping[str, Sequence[Record]]) -> str:
    first = plan.exits[0]
    rows = [("arm", "", "seeds", "weights", f"MMACs @{first}", "steps", "training cost", "training time")]
    base = next((runs[0] for runs in by_arm.values() if runs), None)
    for arm, runs in by_arm.items():
        if runs and base is not None:
            cost = runs[0]["training_macs"] / base["training_macs"]
            time = _time(runs, by_arm[base["arm"]])
            answer = f"{runs[0]['exit_macs'][0] / 1e6:.2f}"
            size = str(len(runs)), f"{runs[0]['parameters']:,}", answer, str(runs[0]["steps"])
            rows.append((f"`{arm}`", _says(plan, arm), *size, f"{cost:.2f}", time))
    return _table(rows)


def _metric_table(plan: Plan, by_arm: Mapping[str, Sequence[Record]], metric: str) -> str:
    rows = [("arm", *(f"@{exit}" for exit in plan.exits))]
    for arm, runs in by_arm.items():
        if not runs:
            continue
        cells = [_spread(list(readings(runs, arm, exit, metric).values())) for exit in plan.exits]
        rows.append((f"`{arm}`", *cells))
    return _table(rows)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "diverged"
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _time(arm: Sequence[Record], base: Sequence[Record]) -> str:
    """Seconds of an arm's training over the base's of the same seed, the median over seeds."""
    first = {run["seed"]: run["seconds"] for run in base}
    ratios = [run["seconds"] / first[run["seed"]] for run in arm if first.get(run["seed"])]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def _differences_table(found: Sequence[Difference]) -> str:
    rows = [("left", "right", "of", "points", "95 % interval", "higher in", "p, corrected", "verdict")]
    for each in found:
        if len(each.values) < 2:
            continue
        rows.append((
            f"`{each.comparison.left}`", f"`{each.comparison.right}`", each.metric, f"{each.mean:+.2f}",
            f"{each.low:+.2f} to {each.high:+.2f}", f"{each.wins} of {len(each.values)}", _p(each.corrected),
            each.verdict,
        ))  # fmt: skip
    return _table(rows)


def _p(value: float) -> str:
    return "< .0001" if value < 1e-4 else f"{value:.4f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def draw(plan: Plan, runs: Sequence[Record]) -> Figure:
    """Each metric against the cost of an answer: a line an arm through its exits, with the deviation over seeds."""
    columns = min(3, len(plan.metrics))
    lines = -(-len(plan.metrics) // columns)
    legend = -(-len(plan.arms) // (4 * columns))
    figure = Figure(figsize=(5 * columns, 3.8 * lines + 0.2 * legend), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    colours = colormaps["tab10" if len(plan.arms) <= 10 else "tab20"]
    for metric, axis in zip(plan.metrics, axes, strict=False):
        for number, arm in enumerate(plan.arms):
            own = [run for run in runs if run["arm"] == arm and not run["diverged"]]
            if not own:
                continue
            values = [list(readings(own, arm, exit, metric).values()) for exit in plan.exits]
            means = [statistics.fmean(each) for each in values]
            spread = [statistics.stdev(each) if len(each) > 1 else 0.0 for each in values]
            cost = [macs / 1e6 for macs in own[0]["exit_macs"]]
            cycled = plan.arms[arm].cycles > 1
            axis.errorbar(
                cost, means, spread, label=arm, capsize=2, marker="o" if cycled else "s", markersize=4,
                linestyle="-" if cycled else ":", color=colours(number % colours.N),
            )  # fmt: skip
        axis.set(title=metric, xlabel="million MACs an answer, inputs as trained", ylabel="%")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())  # numbers between these run into each other
        axis.grid(alpha=0.3)
    for axis in list(axes)[len(plan.metrics) :]:
        axis.set_axis_off()
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4 * columns, fontsize="small"
    )
    return figure
