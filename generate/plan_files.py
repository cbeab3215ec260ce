"""The files of a plan: JSON, CSV and a picture."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

from ..durable import make_folder, write_bytes
from .figure import draw_plan
from .plan import Plan


def describe_plan(plan: Plan) -> dict:
    """The plan as a JSON document."""
    rows = [asdict(each) | {"total": each.total} for each in plan.classes]
    return {
        "fill": plan.fill,
        "real": plan.real,
        "generated": plan.generated,
        "total": plan.real + plan.generated,
        "seconds_per_clip": plan.seconds_per_clip,
        "gpu_hours": round(plan.gpu_hours, 3),
        "cost": None if plan.cost is None else round(plan.cost, 2),
        "classes": rows,
    }


def write_plans(folder: Path, plans: list[Plan], digest: str) -> None:
    """Write ``plan.json``, ``plan.csv`` (a line for each class and filling number) and ``plan.svg`` (the largest).

    Args:
        folder: Made where it is not there; files of these names are replaced.
        plans: Of one manifest.
        digest: The manifest's.

    Raises:
        EnvironmentFault: When the folder cannot be written.
    """
    document = {"manifest": digest, "plans": [describe_plan(plan) for plan in plans]}
    contents = {
        "plan.json": json.dumps(document, indent=2, allow_nan=False) + "\n",
        "plan.csv": _to_csv(plans),
        "plan.svg": draw_plan(max(plans, key=lambda plan: plan.fill)),
    }
    make_folder(folder)
    for name, content in contents.items():
        write_bytes(folder / name, content.encode(errors="backslashreplace"))  # a group may be named anything


def _to_csv(plans: list[Plan]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["fill", "label", "group", "real", "generated", "total", "gpu_hours"])
    for plan in plans:
        for each in plan.classes:
            hours = round(each.generated * plan.seconds_per_clip / 3600, 3)
            writer.writerow([plan.fill, each.label, each.group or "", each.real, each.generated, each.total, hours])
    return text.getvalue()
