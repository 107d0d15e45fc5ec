"""From a large file on disk to tokens: a look, which decodes what it needs, against decoding all and resizing to 224.

    python benchmarks/file_time.py [--side 8192] [--photo PHOTO]

The same picture as a tiled pyramid TIFF and as a baseline JPEG (made here with libvips, a photograph enlarged if a path
is given, else smooth noise), opened anew in each round, in the page cache. Both ways end in the tokens of the default
model's vision side. The look's centre fixation has native pixels (levels auto); the other sees 224 x 224.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyvips
import torch
from PIL import Image
from side_by_side import arguments, compare

from foveal import Retina, open_picture
from foveal.models import MultiModalTransformer, MultiModalTransformerConfig
from foveal.models.processing import MEAN, STD


def make_files(folder: Path, side: int, photo: str | None) -> dict[str, Path]:
    if photo is None:
        small = torch.randint(0, 256, (side // 16, side // 16, 3), dtype=torch.uint8).numpy()
        image = pyvips.Image.new_from_array(small).resize(16, kernel="cubic").cast("uchar")
    else:
        image = pyvips.Image.new_from_file(photo)
        image = image.resize(side / image.width, vscale=side / image.height)
    files = {"tiled pyramid TIFF": folder / "large.tif", "baseline JPEG": folder / "large.jpg"}
    image.tiffsave(
        str(files["tiled pyramid TIFF"]), tile=True, pyramid=True, tile_width=256, tile_height=256, compression="jpeg"
    )
    image.jpegsave(str(files["baseline JPEG"]), Q=90)
    return files


def main() -> None:
    photo = {"default": None, "help": "a photograph to enlarge"}
    given = arguments(__doc__, side={"type": int, "default": 8192}, photo=photo)
    Image.MAX_IMAGE_PIXELS = None
    model = MultiModalTransformer(MultiModalTransformerConfig()).eval()
    fovea = Retina(64, mean=MEAN, std=STD)
    dense = Retina(224, 1, mean=MEAN, std=STD)

    def by_pillow(path: Path) -> object:
        with Image.open(path) as opened:
            return model.encoder.look(dense(opened.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)))

    def by_libvips(path: Path) -> object:
        picture = pyvips.Image.new_from_file(str(path), access="sequential")
        small = picture.resize(224 / picture.width, vscale=224 / picture.height)
        return model.encoder.look(dense(torch.from_numpy(small.numpy()).permute(2, 0, 1)))

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for kind, path in make_files(Path(folder), given.side, given.photo).items():
            compare(
                f"{kind}, {given.side} x {given.side}, {path.stat().st_size / 1e6:.0f} MB: file to tokens",
                {
                    "decode all, resize to 224 (Pillow)": lambda path=path: by_pillow(path),  # type: ignore[misc]
                    "decode all, resize to 224 (libvips)": lambda path=path: by_libvips(path),  # type: ignore[misc]
                    "a look": lambda path=path: model.encoder.look(fovea(open_picture(path))),  # type: ignore[misc]
                },
                max(3, given.repeats // 4),
            )


if __name__ == "__main__":
    main()
