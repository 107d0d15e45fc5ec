import threading

import torch

from foveal import Layout, halo_pad
from foveal.halo import padded_for_a_step
from foveal.scratch import BUFFERS, scratch


class Owner:
    pass


def test_a_buffer_belongs_to_its_owner_key_and_thread():
    owner, other = Owner(), Owner()
    first = scratch(owner, 1, lambda: torch.zeros(2))
    assert scratch(owner, 1, lambda: torch.zeros(2)) is first
    assert scratch(owner, 2, lambda: torch.zeros(2)) is not first
    assert scratch(other, 1, lambda: torch.zeros(2)) is not first
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(scratch(owner, 1, lambda: torch.zeros(2))))
    thread.start()
    thread.join()
    assert elsewhere[0] is not first


def test_an_owner_lives_as_long_as_its_buffer_so_that_no_other_is_taken_for_it():
    seen = []
    for number in range(3 * BUFFERS):
        owner = Owner()
        assert scratch(owner, "", lambda number=number: torch.full((1,), float(number))) == number
        seen.append(id(owner))
        del owner  # which alone ends it: nothing refers to it in a circle
    assert len(set(seen[-BUFFERS:])) == BUFFERS


def test_padding_for_a_step_is_padding_again_and_again():
    layouts = [Layout.foveal(picture=(64, 50), size=16, levels=3, fixation=place) for place in ((0.1, 0.9), (0.7, 0.2))]
    with torch.no_grad():
        for _ in range(3):
            for layout in layouts:
                for value in (0.0, float("-inf")):
                    x = torch.randn(3, 4, 8, 8)
                    assert torch.equal(
                        padded_for_a_step(x, layout, (1, 2, 0, 1), value), halo_pad(x, layout, (1, 2, 0, 1), value)
                    )
    with torch.inference_mode():
        x = torch.randn(3, 4, 8, 8)
        held = padded_for_a_step(x, layouts[0], 1).clone()
    with torch.no_grad():
        assert torch.equal(padded_for_a_step(x.clone(), layouts[0], 1), held)


def test_what_a_gradient_needs_is_never_written_over():
    layout = Layout.tiling(picture=(32, 32), size=16)
    x = torch.randn(4, 2, 8, 8, requires_grad=True)
    first = padded_for_a_step(x, layout, 1)
    before = first.detach().clone()
    padded_for_a_step(x * 2, layout, 1)
    assert torch.equal(first, before)
