import torch

from foveal.weighted_rows import weighted_rows


def test_sums_of_as_many_rows_and_of_unlike_numbers_of_rows() -> None:
    rows = torch.randn(7, 5)
    index, weight = torch.randint(0, 7, (11, 4)), torch.randn(11, 4)
    wanted = (rows[index] * weight[..., None]).sum(1)
    torch.testing.assert_close(weighted_rows(rows, index, weight), wanted)
    flat = torch.tensor([3, 1, 4, 1, 5])
    shares = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0])
    found = weighted_rows(rows, flat, shares, torch.tensor([0, 2, 2]))
    wanted = torch.stack([rows[3] - 2 * rows[1], torch.zeros(5), rows[4] / 2 + 3 * rows[1] + rows[5]])
    torch.testing.assert_close(found, wanted)


def test_gradients_reach_rows_and_weights() -> None:
    rows = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 6, (4, 2))
    weight = torch.randn(4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: weighted_rows(values, index, weight), rows)
