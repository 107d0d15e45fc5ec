import pytest
import torch

from foveal import Layout, Retina
from foveal.models.center_focus import CenterFocusCNN
from foveal.policy.policies import Point, Refine, Scanpath, Tiling
from foveal.policy.scores import contrast, feature_energy, places

RETINA = Retina(16, levels=4)


def with_checks(*places_of: tuple[int, int], side: int = 128) -> torch.Tensor:
    """A grey picture with a patch of checks around each place, as large as two cells of its widest window."""
    picture = torch.full((3, side, side), 0.5)
    checks = (torch.arange(16)[:, None] // 8 + torch.arange(16) // 8) % 2
    for y, x in places_of:
        picture[:, y - 8 : y + 8, x - 8 : x + 8] = checks.float()
    return picture


def windows(layout: Layout, sample: int = 0) -> list[tuple[int, ...]]:
    rows = torch.cat([layout.levels[..., None], layout.origins], -1)[sample]
    return [tuple(row) for row in rows[layout.valid[sample]].tolist()]


def test_a_scan_is_its_chains_with_shared_windows_once() -> None:
    points = [(0.2, 0.3), (0.25, 0.3), (0.9, 0.9)]
    options = {"picture": (100, 128), "size": 16, "levels": 4}
    chains = [windows(Layout.foveal(fixation=point, **options)) for point in points]
    scan = Layout.scan(fixations=points, **options)
    assert set(windows(scan)) == {window for chain in chains for window in chain}
    assert len(windows(scan)) == len(set(windows(scan))) < 12
    torch.testing.assert_close(scan.fixations[0], torch.tensor(points, dtype=torch.float64))
    assert scan.areas(4).sum() == 100 * 128
    one = Layout.scan(fixations=points[:1], **options)
    assert windows(one) == chains[0]


def test_the_widest_window_of_each_picture() -> None:
    layout = Layout.foveal(picture=[(100, 128), (10, 10), (60, 20)], size=16)
    widest = layout.widest()
    assert widest.num_windows == 1
    assert widest.levels.flatten().tolist() == [3, 0, 2]
    assert not widest.origins.any()


def test_a_point_is_the_ordinary_look() -> None:
    pictures = [torch.rand(3, 128, 100), torch.rand(3, 30, 30)]
    layout = Point((0.3, 0.9))(pictures, RETINA)
    assert torch.equal(RETINA(pictures, layout=layout).pixels, RETINA(pictures, (0.3, 0.9)).pixels)


def test_a_scanpath_goes_where_the_score_is_and_on() -> None:
    layout = Scanpath(2, radius=1.5)(with_checks((24, 104), (104, 24)), RETINA)
    found = sorted((layout.fixations[0] * 128).tolist())
    for place, wanted in zip(found, [[24, 104], [104, 24]], strict=True):
        assert torch.dist(torch.tensor(place), torch.tensor(wanted).double()) < 10
    assert sum(window[0] == 0 for window in windows(layout)) == 2
    mass = Scanpath(how="mass")(with_checks((24, 104)), RETINA)
    assert torch.dist(mass.fixations[0, 0] * 128, torch.tensor([24.0, 104.0]).double()) < 4


def test_many_pictures_are_looked_at_by_themselves() -> None:
    pictures = torch.stack([with_checks((20, 100)), with_checks((100, 30))])
    for count in (1, 3):
        policy = Scanpath(count)
        together = policy(pictures, RETINA)
        for sample in range(2):
            alone = policy(pictures[sample], RETINA)
            assert windows(together, sample) == windows(alone)


def test_scores_of_any_kind_of_callable() -> None:
    def corner(glimpse):
        scores = torch.zeros(len(glimpse.pixels), 4, 4)
        scores[:, 0, 3] = 1
        return scores

    layout = Scanpath(score=corner)(torch.rand(3, 128, 128), RETINA)
    assert layout.fixations[0, 0].tolist() == [0.125, 0.875]
    network = CenterFocusCNN("nano").eval()
    layout = Scanpath(2, score=feature_energy(network))(torch.rand(3, 128, 128), Retina(64, levels=2))
    assert layout.fixations.shape == (1, 2, 2)


def test_places_outside_the_picture_are_never_chosen_and_nothing_to_see_is_the_centre() -> None:
    widest = Layout.foveal(picture=[(40, 128), (128, 128)], size=16, levels=4).widest()
    scores = torch.zeros(2, 16, 16)
    scores[:, 12, 3] = 5
    scores[:, 2, 5] = 1
    found = places(scores, widest)
    assert found[0, 0].tolist() == [20 / 40, 44 / 128]
    assert found[1, 0].tolist() == [100 / 128, 28 / 128]
    assert places(torch.ones(2, 16, 16), widest)[:, 0].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    # A threshold leaves the weak place out of the mass.
    assert places(scores[1:], _second(widest), how="mass")[0, 0].tolist() == [100 / 128, 28 / 128]


def test_a_local_centre_of_mass_lies_between_cells_and_leaves_what_is_far_from_the_peak_alone() -> None:
    widest = Layout.foveal(picture=[(64, 64)] * 2, size=16, levels=3).widest()
    scores = torch.zeros(2, 8, 8)  # cells of 8 pixels
    scores[0, 4, 2], scores[0, 5, 2], scores[0, 4, 1], scores[0, 4, 4] = 4, 2, 2, 3
    scores[1, 0, 7], scores[1, 0, 6], scores[1, 1, 0] = 3, 1, 2  # the next cell in memory is not beside it
    found = places(scores, widest, how="local")[:, 0] * 64
    assert found.tolist() == [[(36 * 6 + 44 * 2) / 8, (20 * 6 + 12 * 2) / 8], [4, (60 * 3 + 52) / 4]]


def _second(layout: Layout) -> Layout:
    rows = (layout.origins, layout.levels, layout.pictures, layout.fixations, layout.valid)
    return Layout(layout.size, *(row[1:] for row in rows))


def test_impossible_scores_and_options_are_refused() -> None:
    widest = Layout.foveal(picture=(64, 64), size=16, levels=3).widest()
    with pytest.raises(ValueError, match=r"expected \(1, n, n\)"):
        places(torch.zeros(2, 4, 4), widest)
    for wrong in (
        {"how": "best"},
        {"threshold": 1.0},
        {"threshold": "x"},
        {"radius": -1},
        {"radius": float("nan")},
        {"radius": None},
    ):
        with pytest.raises(ValueError, match="threshold from 0"):
            places(torch.zeros(1, 4, 4), widest, **wrong)
    for count in (0, 2.5, "2", True):
        with pytest.raises(ValueError, match=f"count is {count!r}; expected a whole number of at least 1"):
            places(torch.zeros(1, 4, 4), widest, count=count)
    for policy in (Refine, Scanpath):
        for number in (0, 2.5, "3", None):
            with pytest.raises(ValueError, match=f"{number!r}; expected a whole number of at least 1"):
                policy(number)
        with pytest.raises(ValueError, match="expected a function"):
            policy(2, score="contrast")


@pytest.mark.parametrize("policy", [Refine, Scanpath])
@pytest.mark.parametrize("given", [torch.zeros(1, 4), torch.zeros(3), torch.zeros(1, 4, 3), torch.zeros(1, 0, 0), None])
def test_what_a_score_gives_must_be_scores(policy, given) -> None:
    with pytest.raises(ValueError, match=r"expected \(1, n, n\), of one window a picture"):
        policy(3, score=lambda glimpse: given)(torch.rand(3, 64, 64), RETINA)


@pytest.mark.parametrize("wrong", [float("inf"), float("nan")])
def test_scores_that_are_no_numbers_are_refused_where_a_picture_lies(wrong) -> None:
    widest = Layout.foveal(picture=(64, 32), size=16, levels=3).widest()
    scores = torch.zeros(1, 4, 4)
    scores[0, 1, 1] = wrong
    for how in ("peak", "local", "mass"):
        with pytest.raises(ValueError, match=f"picture 0 hold {wrong}"):
            places(scores, widest, how=how)
    with pytest.raises(ValueError, match=f"picture 0 hold {wrong}"):
        Refine(3, score=lambda glimpse: torch.full((1, 4, 4), wrong))(torch.rand(3, 64, 64), RETINA)
    beside = torch.zeros(1, 4, 4)
    beside[0, 1, 3], beside[0, 2, 0] = wrong, 1
    for how in ("peak", "local", "mass"):
        assert places(beside, widest, how=how)[0, 0].tolist() == [40 / 64, 8 / 32]


@pytest.mark.parametrize("how", ["peak", "local", "mass"])
def test_minus_infinity_is_worth_nothing_and_the_rest_is_judged_as_without_it(how) -> None:
    widest = Layout.foveal(picture=(64, 64), size=16, levels=3).widest()
    scores = torch.tensor([0.0, 1.0, 5.0, 4.0]).expand(1, 4, 4).clone()
    wanted = places(scores, widest, how=how)
    scores[0, :, 0] = -torch.inf
    scores[0, 3, 1] = 0
    assert torch.equal(places(scores, widest, how=how), wanted)
    assert places(torch.full((1, 4, 4), -torch.inf), widest, how=how).tolist() == [[[0.5, 0.5]]]


def test_refinement_puts_finer_windows_where_the_score_is() -> None:
    picture = with_checks((24, 104), (104, 24))
    layout = Refine(7)(picture, RETINA)
    assert layout.num_windows == 7
    found = windows(layout)
    assert (3, 0, 0) in found
    for y, x in ((24, 104), (104, 24)):
        assert any(level == 0 and top <= y < top + 16 and left <= x < left + 16 for level, top, left in found)
    for level, top, left in found:  # every window lies in a coarser one, on the lattice
        if level < 3:
            assert top % (8 << level) == left % (8 << level) == 0
            inside = [
                (a, b, c)
                for a, b, c in found
                if a == level + 1 and b <= top <= b + (16 << level) and c <= left <= c + (16 << level)
            ]
            assert inside
    assert layout.areas(4).sum() == 128 * 128


def test_refinement_stops_where_all_is_seen_and_holds_at_any_size() -> None:
    small = Refine(50)(torch.rand(3, 20, 30), Retina(16))
    assert (
        set(windows(small)) == {(1, 0, 0), (0, 0, 0), (0, 0, 16), (0, 8, 0), (0, 8, 16)} or small.areas(4).sum() == 600
    )
    assert len(windows(small)) < 12
    both = Refine(4)([torch.rand(3, 200, 90), torch.rand(3, 16, 16)], Retina(16))
    assert both.valid.sum(1).tolist() == [4, 1]
    assert torch.equal(
        Retina(16)([torch.rand(3, 200, 90), torch.rand(3, 16, 16)], layout=both).layout.levels, both.levels
    )


def test_tiling_is_that_of_the_layout() -> None:
    layout = Tiling()(torch.rand(3, 40, 50), Retina(16))
    assert windows(layout) == windows(Layout.tiling(picture=(40, 50), size=16))
    assert windows(Tiling(1)(torch.rand(3, 40, 50), Retina(16))) == windows(
        Layout.tiling(picture=(40, 50), size=16, level=1)
    )


def test_contrast_is_the_variance_around() -> None:
    glimpse = Retina(8, levels=1)(torch.rand(2, 3, 8, 8))
    grey = glimpse.pixels[:, 0].mean(1)
    around = grey[1, 2:5, 3:6]
    torch.testing.assert_close(contrast(glimpse)[1, 3, 4], around.var(correction=0), rtol=1e-4, atol=1e-6)
