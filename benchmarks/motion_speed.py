"""Clips a second and core of `extract --backbone motion`, all processes counted, start-up left out.

python benchmarks/motion_speed.py ../shared/data/videos/manifest_all9.csv build/motion-speed
"""

import argparse
import resource
import shutil
from pathlib import Path

from longreel.extract import extract_clips, load_backbone
from longreel.manifest import read_manifest


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(manifest_path: Path, store: Path, decoder: str) -> None:
    """Extract everything once and divide the clips by the CPU seconds that took, the workers' start included."""
    shutil.rmtree(store, ignore_errors=True)
    manifest, backbone = read_manifest(manifest_path), load_backbone("motion")
    begun = cpu_seconds()
    report = extract_clips(manifest, store, backbone, decoder=decoder)
    spent = cpu_seconds() - begun
    print(f"{report.written} clips, {spent:.1f} CPU seconds, {report.written / spent:.1f} clips a second and core")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--decoder", default="auto")
    given = parser.parse_args()
    main(given.manifest, given.store, given.decoder)
