"""The head of the page: what was looked at, and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from spinscape.report import markup
from spinscape.report.panels import Parts
from spinscape.report.sections import Protocol
from spinscape.report.spin_protocols import SPIN_LEADS, SPIN_STUDIES
from spinscape.report.valley_protocols import ASYMMETRY_STUDIES, MINING_STUDIES, VALLEY_LEADS

__all__ = ["header", "heading", "is_given"]

COMMANDS = ("explore", "mine", "spins")


def _data_name(config: Mapping[str, Any]) -> str:
    """Name of the data without the folders it lies in."""
    return Path(str(config.get("data", "unnamed data"))).name


def is_given(config: Mapping[str, Any]) -> bool:
    """Whether the networks were trained elsewhere."""
    return bool(config.get("checkpoints"))


def heading(config: Mapping[str, Any], study: str = "explore") -> str:
    """Title of the page."""
    if study in SPIN_STUDIES:
        origin = "given networks" if is_given(config) else "networks trained on"
        return f"The spins of {origin} {'' if is_given(config) else _data_name(config)}".strip()
    if study in (*MINING_STUDIES, *ASYMMETRY_STUDIES):
        origin = "a given network on" if is_given(config) else "networks trained on"
        return f"The valleys of {origin} {_data_name(config)}"
    origin = "given networks on" if is_given(config) else "networks trained on"
    return f"The loss landscape of {origin} {_data_name(config)}"


def header(
    config: Mapping[str, Any], parts: Parts, protocols: Sequence[Protocol], study: str = "explore"
) -> str:
    """Title, facts of the run, and what the page asks, as HTML."""
    facts = [f"data: {_data_name(config)}"] if "data" in config else []
    population = parts.get("population")
    if population is not None:
        count = population.sizes["replica"]
        origin = "given" if is_given(config) else "trained"
        facts.append(f"{count} {origin} network{'' if count == 1 else 's'}")
        facts.append(f"{population.sizes['n']:,} weights each")
    # A network of the user's has its own width: the setting is not used.
    for name in ("preset", "seed") if config.get("model") else ("preset", "width", "seed"):
        value = config.get(name, _settings(config).get(name))
        if value not in (None, ""):
            facts.append(f"{name} {value}")
    facts.append(f"drawn {_day(date.today())}")
    return "\n".join(
        [
            f'<p class="eyebrow">spinscape · {escape(_study(study))}</p>',
            f"<h1>{escape(heading(config, study))}</h1>",
            markup.paragraphs(" · ".join(facts), style="facts"),
            markup.paragraphs(_lead(config, parts, protocols, study), style="lead"),
        ]
    )


def _study(name: str) -> str:
    """Read the command that made a run off its study's name."""
    return name if name in COMMANDS else f"reproduce {name}"


def _lead(
    config: Mapping[str, Any], parts: Parts, protocols: Sequence[Protocol], study: str
) -> str:
    if study in SPIN_STUDIES:
        return SPIN_LEADS["given" if is_given(config) else "trained"]
    if study in (*MINING_STUDIES, *ASYMMETRY_STUDIES):
        return VALLEY_LEADS["mine" if study in MINING_STUDIES else "asymmetry"]
    questions = "what the ground around them looks like, what stands between them,"
    if is_given(config):
        words = (
            "These networks were trained elsewhere and given to this study. Questions from the "
            f"physics of glasses are put to them: {questions} and whether they form families. "
            "Whether smoother ground means fewer mistakes on new data is asked only of networks "
            "that were trained to about equal loss, so not of these."
        )
    else:
        words = (
            "Many copies of one network were trained on the same data. Questions from the "
            f"physics of glasses are put to them: {questions} whether they form families, and, "
            "with further networks trained to about equal loss, whether smoother ground means "
            "fewer mistakes on new data."
        )
    if not all(p.stands_in(parts) for p in protocols):
        words += " Not all of it could be asked here; what was left out is named below."
    return words


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = config.get("settings", {})
    return settings if isinstance(settings, Mapping) else {}


def _day(day: date) -> str:
    return f"{day.day} {day:%B %Y}"
