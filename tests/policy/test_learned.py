import pytest
import torch

from foveal import Layout
from foveal.policy.learned import draw_places, preference_loss


def widest(*pictures):
    return Layout.foveal(picture=list(pictures), size=16, levels=3).widest()


def test_places_are_drawn_by_their_scores_inside_the_picture_and_never_twice():
    torch.manual_seed(0)
    layout = widest(*[(64, 32)] * 4000)
    scores = torch.zeros(4000, 4, 4)
    scores[:, 1, 1] = 2.0
    index, fixations = draw_places(scores, layout, count=2)
    assert (index[:, 0] != index[:, 1]).all()
    assert (index % 4 < 2).all()  # the right half lies beside the picture
    share = (index[:, 0] == 5).float().mean()
    assert share == pytest.approx(float(torch.tensor(2.0).exp() / (torch.tensor(2.0).exp() + 7)), abs=0.03)
    assert fixations[index == 5].unique(dim=0).tolist() == [[24 / 64, 24 / 32]]
    cold, _ = draw_places(scores, layout, count=1, temperature=0.01)
    assert (cold == 5).all()


def test_scores_come_to_tell_how_much_less_the_loss_is():
    torch.manual_seed(0)
    layout = widest(*[(64, 64)] * 8)
    truth = torch.randn(16)
    scores = torch.zeros(16, requires_grad=True)
    optimiser = torch.optim.Adam([scores], lr=0.05)
    for _ in range(600):
        shown = scores.view(1, 4, 4).expand(8, -1, -1)
        index, _ = draw_places(shown, layout, temperature=3.0)
        harder = torch.randn(8, 1)  # some pictures are harder everywhere
        loss = preference_loss(shown, index, harder - truth[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    learned = scores.detach() - scores.detach().mean()
    torch.testing.assert_close(learned, truth - truth.mean(), atol=0.1, rtol=0)


def test_what_does_not_fit_is_refused():
    layout = widest((64, 64))
    for scores, options in (
        (torch.zeros(2, 4, 4), {}),
        (torch.zeros(1, 4, 3), {}),
        (torch.zeros(1, 4, 4), {"temperature": 0.0}),
        (torch.zeros(1, 4, 4), {"count": 17}),
    ):
        with pytest.raises(ValueError, match="expected"):
            draw_places(scores, layout, **options)
    with pytest.raises(ValueError, match=r"expected \(1, 2\)"):
        preference_loss(torch.zeros(1, 4, 4), torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3))
