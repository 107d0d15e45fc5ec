"""The table of all blocks; run it to write docs/blocks.md."""

from __future__ import annotations

from pathlib import Path

from foveal.blocks.registry import FAMILIES, find_block, list_blocks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "blocks.md"

HEAD = """# Building blocks

`foveal.blocks.create_block(NAME, ...)` makes one, `list_blocks("*attention*")` finds them, and
`help(find_block(NAME).make)` says what it is: formula, paper, shapes, parameters, when to use it and when not.
Where PyTorch, torchvision or timm has a block, theirs is handed out; kornia is no dependency, so the classical
filters are our own, checked against SciPy and scikit-image. Blocks of maps take plain ones, (B, C, H, W), and
glimpses through `foveate`; where that is not exact, or cannot be, the docstring says so. Written by `python
tests/blocks/listing.py`.

```python
import torchvision
from foveal.blocks import create_block, insert_block, list_blocks

print(list_blocks("*attention*"))
block = create_block("coordinate_attention", channels=64)
network = insert_block(torchvision.models.resnet18(), "cbam", after="layer*.*")  # starts as the identity
```

`insert_block` plugs a block into a network at every place that a pattern of module paths names; the network given stays
as it is, the old weights keep their keys, and a block that does not fit is refused with the shapes.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for family in FAMILIES:
        rows = [find_block(name) for name in list_blocks(family=family)]
        parts.append(f"\n## {family.capitalize()}\n\n| block | whose | what |\n|---|---|---|\n")
        parts += [f"| `{row.name}` | {row.origin} | {row.summary.replace('|', chr(92) + '|')} |\n" for row in rows]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
