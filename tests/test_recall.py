"""What is known of a look is shared with the same look, and only with it."""

from __future__ import annotations

import torch

from foveal import Layout
from foveal.recall import FEW_WINDOWS, LOOKS, recall


def look(y: float = 0.5, **changes) -> Layout:
    return Layout.foveal(**{"picture": (128, 100), "size": 32, "levels": 3, "fixation": (y, 0.5), **changes})


def test_the_same_look_is_worked_out_once():
    calls = []
    for _ in range(3):
        look(0.123).remembered("something", lambda: calls.append(1))
    assert len(calls) == 1


def test_another_look_is_worked_out_anew():
    looks = [look(0.2), look(0.9), look(0.2, picture=(128, 101)), look(0.2, size=64), look(0.2, levels=2)]
    looks += [look(0.2, picture=[(128, 100)] * 2), Layout(32, *(looks[0].origins + 1, *tensors(looks[0])[1:]))]
    calls = []
    for number, layout in enumerate(looks):
        layout.remembered("a number", lambda number=number: calls.append(number))
    assert calls == list(range(len(looks)))


def test_looks_of_the_same_windows_share_all_but_what_their_fixations_change():
    one, other = look(0.5), look(0.505)
    assert torch.equal(one.origins, other.origins)
    one.remembered("a table", lambda: "made")
    assert other.remembered("a table", lambda: "made again") == "made"
    for layout in (one, other, one):
        apart = layout.cell_places(4)[0, 0] - layout.fixations[0, 0] * layout.pictures[0]
        torch.testing.assert_close(layout.eccentricity(4)[0, 0].double(), apart.norm(dim=-1), rtol=1e-6, atol=1e-5)


def test_what_fixations_change_does_not_add_up_in_a_look_that_is_shared():
    known = look(0.5)._known()
    before = len(known)
    for number in range(20):
        look(0.5 + number * 1e-4).eccentricity(4)
    assert len(known) == before


def tensors(layout: Layout) -> list[torch.Tensor]:
    return [layout.origins, layout.levels, layout.pictures, layout.fixations, layout.valid]


def test_a_layout_of_many_windows_remembers_for_itself():
    calls = []
    many = {"picture": (16 * FEW_WINDOWS, 32), "size": 16}
    layout = Layout.tiling(**many)
    for same in (layout, layout, Layout.tiling(**many)):
        same.remembered("something", lambda: calls.append(1))
    assert len(calls) == 2


def test_the_oldest_look_is_forgotten_first():
    first = recall(("look", 0))
    for number in range(1, LOOKS):
        recall(("look", number))
    assert recall(("look", 0)) is first
    for number in range(LOOKS):
        recall(("other", number))
    assert recall(("look", 0)) is not first
