"""Figures of a report (`hpcgan evaluate`, `overlay`, `sweep report`) side by side as one small PNG, for a document.

    python benchmarks/report_figures.py runs/RUN/report/report.html summed_jet_mass jet_pt --out docs/figures/NAME.png

Names are those of `report.json` under `figures`; without any the names are listed. Rows are cut by `--columns`. With
`--beside REPORT ...` each name is followed by the figures of that name in the other reports.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import sys
from pathlib import Path

from PIL import Image

FIGURE = re.compile(r'<figure id="([^"]+)"[^>]*>\s*<img [^>]*src="data:image/png;base64,([^"]+)"')
COLOURS = 128


def sheet(images: list[Image.Image], columns: int, width: int) -> Image.Image:
    """Rows of images of one height each, `width` pixels wide."""
    strips = []
    for start in range(0, len(images), columns):
        row = images[start : start + columns]
        height = min(image.height for image in row)
        scaled = [image.resize((round(image.width * height / image.height), height)) for image in row]
        strip = Image.new("RGB", (sum(image.width for image in scaled), height), "white")
        at = 0
        for image in scaled:
            strip.paste(image, (at, 0))
            at += image.width
        strips.append(strip.resize((width, round(strip.height * width / strip.width))))
    whole = Image.new("RGB", (width, sum(strip.height for strip in strips)), "white")
    at = 0
    for strip in strips:
        whole.paste(strip, (0, at))
        at += strip.height
    return whole


def main() -> None:
    """Cut the figures out of the page and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="HTML")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--beside", nargs="+", type=Path, default=[], metavar="REPORT")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument("--width", type=int, default=1400, help="pixels")
    args = parser.parse_args()
    found = {path: dict(FIGURE.findall(path.read_text(encoding="utf-8"))) for path in (args.report, *args.beside)}
    if not args.names or args.out is None:
        print("\n".join(found[args.report]))
        return
    images = []
    for name in args.names:
        for path, figures in found.items():
            if name not in figures:
                sys.exit(f"{path}: no figure {name!r}; there are {', '.join(figures)}")
            images.append(Image.open(io.BytesIO(base64.b64decode(figures[name]))).convert("RGB"))
    sheet(images, args.columns, args.width).quantize(COLOURS).save(args.out, optimize=True)
    print(f"{args.out}: {args.out.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
