import pytest
import torch

from foveal import Layout
from foveal.policy.learned import draw_places, mixture_loss


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
    whole, _ = draw_places((scores * 10).long(), layout, count=1)
    assert (whole == 5).float().mean() > 0.99
    cold, _ = draw_places(scores, layout, count=1, temperature=0.01)
    assert (cold == 5).all()


def test_the_head_finds_the_place_that_speaks_for_the_answer_and_the_answers_are_learned_there():
    torch.manual_seed(0)
    layout = widest(*[(64, 64)] * 32)
    evidence = torch.nn.Linear(6, 3)  # what a place shows -> which of three answers
    score = torch.nn.Linear(6, 1)
    kinds, hidden = torch.randn(3, 5), torch.arange(32) % 3
    optimiser = torch.optim.Adam([*evidence.parameters(), *score.parameters()], lr=0.03)
    for _ in range(400):
        shown, place = torch.randn(32, 16, 6), torch.randint(16, (32,))
        shown[..., 5] = 0
        shown[torch.arange(32), place] = torch.cat([kinds[hidden], torch.ones(32, 1)], 1)  # the only thing that tells
        said = evidence(shown).log_softmax(-1).gather(-1, hidden[:, None, None].expand(-1, 16, 1))
        loss = mixture_loss(score(shown).view(32, 4, 4), layout, said.view(32, 4, 4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2
    assert (score(shown)[..., 0].argmax(1) == place).float().mean() > 0.9


def test_the_mixture_is_what_its_words_say_and_leaves_out_what_lies_beside_the_picture():
    layout = widest((64, 64), (64, 32))
    scores = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    chances = torch.rand(2, 4, 4, dtype=torch.float64)
    loss = mixture_loss(scores, layout, chances.log())
    held = [torch.ones(4, 4, dtype=torch.bool), torch.tensor([True, True, False, False]).expand(4, 4)]
    wanted = [
        -torch.log((scores[one][inside].softmax(0) * chances[one][inside]).sum()) for one, inside in enumerate(held)
    ]
    torch.testing.assert_close(loss, sum(wanted) / 2)
    (grad,) = torch.autograd.grad(loss, scores)
    assert not grad[1, :, 2:].any()
    assert bool(grad.isfinite().all())
    assert torch.autograd.gradcheck(lambda s, c: mixture_loss(s, layout, c.log()), (scores, chances.requires_grad_()))


def test_what_does_not_fit_is_refused():
    layout = widest((64, 64))
    for scores, options in (
        (torch.zeros(2, 4, 4), {}),
        (torch.zeros(1, 4, 3), {}),
        (torch.zeros(1, 4, 4), {"temperature": 0.0}),
        (torch.zeros(1, 4, 4), {"temperature": float("nan")}),
        (torch.zeros(1, 4, 4), {"temperature": "hot"}),
        (torch.zeros(1, 4, 4), {"count": 17}),
        (torch.zeros(1, 4, 4), {"count": 2.5}),
        (torch.full((1, 4, 4), float("nan")), {}),
        (torch.full((1, 4, 4), float("inf")), {}),
    ):
        with pytest.raises(ValueError, match="expected"):
            draw_places(scores, layout, **options)
    with pytest.raises(ValueError, match="expected that of the scores"):
        mixture_loss(torch.zeros(1, 4, 4), layout, torch.zeros(1, 2, 2))


def test_no_more_places_are_drawn_than_lie_in_every_picture():
    layout = widest((64, 64), (64, 16))
    scores = torch.zeros(2, 4, 4)
    _, fixations = draw_places(scores, layout, count=4)
    assert sorted(fixations[1].tolist()) == [[y / 8, 0.5] for y in (1, 3, 5, 7)]
    with pytest.raises(ValueError, match="count is 5; expected at most 4, the cells of picture 1"):
        draw_places(scores, layout, count=5)
    scores[1, 2, 0] = float("-inf")
    _, fixations = draw_places(scores, layout, count=3)
    assert sorted(fixations[1].tolist()) == [[y / 8, 0.5] for y in (1, 3, 7)]
    with pytest.raises(ValueError, match="expected at most 3"):
        draw_places(scores, layout, count=4)
