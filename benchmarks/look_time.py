"""What one look costs as pictures grow, and several looks as one layout.

    python benchmarks/look_time.py [--only size,shared,choosing] [--compiled]

size: one look of S=64 (levels "auto": the fovea has native pixels) at pictures from 256 to 8192 px in memory, with a
pyramid that is there already, without any, and what building one costs. shared: four fixations as one layout, through
ResNet-18, against four looks, and against dense; with --compiled also planned and compiled, against dense compiled
likewise. choosing: what finding the place adds to such a look.
"""

from __future__ import annotations

import time

import torch
import torch._inductor.config
from network_time import resnet18
from side_by_side import arguments, chosen, compare

from foveal import Layout, Retina, foveate, open_picture, planned
from foveal.models.saliency import load_saliency
from foveal.policy.policies import Scanpath
from foveal.policy.scores import contrast, feature_energy


def by_size(repeats: int) -> None:
    retina, sides = Retina(64), (256, 512, 1024, 2048, 4096, 8192)
    pictures = {side: torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for side in sides}
    copies, built = {}, {}
    for side, picture in pictures.items():
        copies[side] = open_picture(picture).pyramid()
        began = time.perf_counter()
        retina(copies[side])
        built[side] = time.perf_counter() - began
    runs = {f"{side} px, from its pyramid": lambda side=side: retina(copies[side]) for side in sides}  # type: ignore[misc]
    middle = compare("one look, S=64, levels auto, uint8 in memory, pyramid not counted", runs, repeats)
    low, high = (middle[f"{side} px, from its pyramid"] for side in (sides[0], sides[-1]))
    print(f"  8192 px against 256 px: {high / low:.2f} times the time")
    runs = {f"{side} px, averaged directly": lambda side=side: retina(pictures[side]) for side in sides}  # type: ignore[misc]
    middle = compare("the same without a pyramid: every window averages its own pixels", runs, max(5, repeats // 3))
    low, high = (middle[f"{side} px, averaged directly"] for side in (sides[0], sides[-1]))
    print(f"  8192 px against 256 px: {high / low:.0f} times the time")
    print("  the first look, which builds the pyramid: " + ", ".join(f"{s} px {built[s] * 1e3:.1f} ms" for s in sides))


def shared(repeats: int, compiled: bool) -> None:
    network = resnet18()
    fovea, retina = foveate(network), Retina(64, 5)
    picture = torch.rand(1, 3, 1024, 1024).contiguous(memory_format=torch.channels_last)
    for spread in (0.05, 0.25):
        points = [(0.5 + y * spread, 0.5 + x * spread) for y in (-1, 1) for x in (-1, 1)]
        layout = Layout.scan(picture=(1024, 1024), size=64, levels=5, fixations=points)
        windows = layout.num_windows
        pixels = 1024**2 / (windows * 64**2)
        runs = {
            "dense": lambda: network(picture),
            "four looks": lambda points=points: [fovea(retina(picture, point)) for point in points],  # type: ignore[misc]
            "one layout": lambda layout=layout: fovea(retina(picture, layout=layout)),  # type: ignore[misc]
        }
        ideal = {"four looks": 1024**2 / (20 * 64**2), "one layout": pixels}
        if compiled:
            glimpse = retina(picture, layout=layout)
            fast, fast_dense = (torch.compile(plan, dynamic=False) for plan in (planned(fovea, glimpse), network))
            with torch.no_grad(), torch._inductor.config.patch(freezing=True):
                fast(glimpse.pixels), fast_dense(picture)
            runs |= {
                "dense, compiled": lambda fast_dense=fast_dense: fast_dense(picture),  # type: ignore[misc]
                "one layout, compiled": lambda fast=fast, layout=layout: fast(retina(picture, layout=layout).pixels),  # type: ignore[misc]
            }
            ideal["one layout, compiled"] = pixels
        with torch.no_grad():
            title = f"ResNet-18, 1024 px, S=64, L=5, fixations at 0.5 +- {spread}: {windows} windows instead of 20"
            middle = compare(title, runs, repeats, ideal)
        share = middle["one layout"] / middle["four looks"]
        print(f"  one layout against four looks: {share:.2f} of the time; by windows {windows / 20:.2f}")
        print(f"  against dense: {middle['dense'] / middle['one layout'] / pixels:.2f} of the ratio of pixels")
        if compiled:
            least = middle["one layout, compiled"]
            for name in ("dense", "dense, compiled"):
                print(f"  compiled, against {name}: {middle[name] / least / pixels:.2f} of the ratio of pixels")


def choosing(repeats: int) -> None:
    fovea, retina = foveate(resnet18()), Retina(64, 5)
    picture = torch.rand(1, 3, 1024, 1024).contiguous(memory_format=torch.channels_last)
    scores = {
        "by contrast": contrast,
        "by saliency": load_saliency(),
        "by the network's own energy": feature_energy(fovea.forward_features),
    }
    policies = {name: Scanpath(1, score) for name, score in scores.items()}
    with torch.inference_mode():
        middle = compare(
            "ResNet-18, 1024 px, S=64, L=5: one look, and the choice of its place",
            {"one look": lambda: fovea(retina(picture, "center"))}
            | {f"choosing {name}": lambda policy=policy: policy(picture, retina) for name, policy in policies.items()}  # type: ignore[misc]
            | {
                f"look chosen {name}": lambda policy=policy: fovea(retina(picture, layout=policy(picture, retina)))  # type: ignore[misc]
                for name, policy in policies.items()
            },
            repeats,
        )
    for name in policies:
        print(f"  choosing {name}: {middle[f'choosing {name}'] / middle['one look']:.2f} of a look")


def main() -> None:
    given = arguments(__doc__, only={"default": "size,shared,choosing"}, compiled={"action": "store_true"})
    repeats = given.repeats
    chosen(
        given,
        {
            "size": lambda: by_size(repeats),
            "shared": lambda: shared(repeats, given.compiled),
            "choosing": lambda: choosing(repeats),
        },
    )


if __name__ == "__main__":
    main()
