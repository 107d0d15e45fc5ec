import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from foveal.training.saliency import Gazes, auc_judd, gaze_map, nss, read_gazes, saliency_map, train_saliency

OSIE = Path(__file__).parents[3] / "shared" / "data" / "osie"


def test_nss_is_the_mean_z_score_where_people_looked():
    values = torch.arange(12, dtype=torch.float64).view(3, 4)
    places = torch.tensor([[0.1, 0.1], [0.9, 0.9]], dtype=torch.float64)  # cells 0 and 11
    assert nss(values, places) == pytest.approx(0)
    assert nss(values, places[1:]) == pytest.approx((11 - 5.5) / math.sqrt(143 / 12))
    assert nss(torch.ones(3, 4), places) == 0


def test_auc_is_the_chance_that_a_place_looked_at_beats_another():
    torch.manual_seed(0)
    values = torch.randint(0, 6, (9, 11)).double()
    places = torch.rand(12, 2, dtype=torch.float64)
    looked = gaze_map(places, 9, 11) > 0
    pairs = values[looked][:, None] - values[~looked]
    expected = ((pairs > 0).double() + (pairs == 0).double() / 2).mean()
    assert auc_judd(values, places) == pytest.approx(float(expected), abs=1e-12)
    assert auc_judd(torch.ones(9, 11), places) == pytest.approx(0.5)
    assert auc_judd(gaze_map(places, 9, 11), places) == pytest.approx(1.0)


def test_a_map_counts_cells_adds_up_and_blurs_without_loss():
    places = torch.tensor([[0.0, 0.0], [0.0, 0.01], [0.99, 0.99]], dtype=torch.float64)
    counts = gaze_map(places, 4, 5)
    assert counts[0, 0] == pytest.approx(2 / 3)
    assert counts[3, 4] == pytest.approx(1 / 3)
    blurred = gaze_map(places, 4, 5, spread=1.0)
    assert blurred.sum() == pytest.approx(1)
    assert (blurred > 0).all()


def test_it_learns_where_people_look(tmp_path):
    """A red square among green ones, and gazes on the red one."""
    torch.manual_seed(0)
    gazes = []
    for number in range(24):
        picture = torch.full((60, 80, 3), 90, dtype=torch.uint8)
        spots = [(10, 10), (10, 60), (45, 10), (45, 60)]
        for place, (y, x) in enumerate(spots):
            colour = [220, 30, 30] if place == number % 4 else [30, 220, 30]
            picture[y - 6 : y + 6, x - 6 : x + 6] = torch.tensor(colour, dtype=torch.uint8)
        Image.fromarray(picture.numpy()).save(tmp_path / f"{number}.png")
        y, x = spots[number % 4]
        around = torch.tensor([y / 60, x / 80]) + torch.randn(20, 2) * 0.03
        gazes.append(Gazes(tmp_path / f"{number}.png", around.clamp(0, 0.999).double()))
    losses = []
    head = train_saliency(gazes[4:], size=32, epochs=15, batch=5, progress=lambda _, loss: losses.append(loss))
    assert losses[-1] < losses[0]
    for gaze in gazes[:4]:
        assert nss(saliency_map(head, gaze.file, size=32, height=30, width=40), gaze.places) > 1.5


def test_damaged_tables_are_told_by_line(tmp_path):
    with pytest.raises(ValueError, match=r"no fixations/\*\.tsv"):
        read_gazes(tmp_path)
    (tmp_path / "fixations").mkdir()
    (tmp_path / "fixations" / "a.tsv").write_text("image\torder\tx_800x600\ty_800x600\n1.jpg\t1\tmany\t3\n")
    with pytest.raises(ValueError, match=r"a\.tsv:2"):
        read_gazes(tmp_path)
    with pytest.raises(ValueError, match="no pictures"):
        train_saliency([])


@pytest.mark.skipif(not OSIE.is_dir(), reason="the eye movements of OSIE are not on this machine")
def test_the_head_that_comes_along_beats_the_centre_bias_on_pictures_it_has_not_seen():
    from foveal.models.saliency import load_saliency

    gazes = read_gazes(OSIE)
    assert len(gazes) == 500
    held_out, taught = gazes[::25], [gaze for number, gaze in enumerate(gazes) if number % 5]
    bias = gaze_map(torch.cat([gaze.places for gaze in taught]), 96, 128, spread=4.0)
    head = load_saliency()
    mine, theirs = (
        sum(nss(shown(gaze), gaze.places) for gaze in held_out) / len(held_out)
        for shown in (lambda gaze: saliency_map(head, gaze.file, size=64, height=96, width=128), lambda _: bias)
    )
    assert mine > theirs + 0.3
