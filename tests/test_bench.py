import json
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from tiny import save_tiny_model
from torch import nn

from foveal.analysis.loglog_plot import loglog_plot
from foveal.bench import Measured, Setting, compare, fit_budget, interleaved, quartiles
from foveal.cli import main


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, stride=8)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_features(x).mean((2, 3))


def only_of_64() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(2), nn.Linear(64 * 64, 1))


def takes_nothing() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 2, 1))


def test_all_ways_at_all_sides_with_cells_that_are_true() -> None:
    done: list[int] = []
    setting = Setting(batch=2, size=32, levels="auto", repeats=3)
    rows = compare(tiny(), [64, 128], setting, progress=lambda number, total: done.append(number))
    assert done == [1, 2]
    assert [row.side for row in rows] == [64] * 5 + [128] * 5
    assert [row.way for row in rows[:5]] == ["dense", "resize", "crop", "fovea", "fovea without halo"]
    dense, resize, crop, fovea, _ = rows[5:]
    assert (dense.cells, fovea.cells) == (128 * 128, 3 * 32 * 32)
    assert resize.cells == crop.cells == 64 * 64
    assert (dense.faster, dense.ideal) == (1.0, 1.0)
    assert fovea.ideal == pytest.approx(128**2 / (3 * 32**2))
    for row in rows:
        assert 0 < row.low <= row.milliseconds <= row.high
        assert row.error is None


def test_where_the_fovea_loses_it_is_said() -> None:
    lost = Measured("fovea", 64, 100, 10.0, 9.0, 11.0, faster=0.5, ideal=4.0)
    assert lost.verdict == "SLOWER than dense: 2.00 times its time"
    assert not Measured("fovea", 64, 100, 10.0, faster=1.5).verdict
    assert not Measured("resize", 64, 100, 10.0, faster=0.5).verdict


def test_where_the_dense_network_cannot_run_there_is_no_verdict() -> None:
    assert not Measured("fovea", 64, 100, 10.0, faster=0.0).verdict


def test_rounds_are_interleaved_and_the_first_not_counted() -> None:
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 4)
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}
    rounds = [calls[start : start + 2] for start in range(0, len(calls), 2)]
    assert all(sorted(one) == ["a", "b"] for one in rounds)
    assert rounds.count(["a", "b"]) in range(1, len(rounds))  # in no fixed order


def test_a_budget_picks_what_fits() -> None:
    fits = fit_budget(Maps(), 256, tokens=60, repeats=2)
    assert [fit.size for fit in fits] == [32, 64, 96, 128, 192, 256]
    for fit in fits:
        n = fit.size // 8
        if fit.size in (32, 64, 128, 256):  # aligned
            assert fit.tokens == n * n + (fit.levels - 1) * n * n * 3 // 4
        assert fit.fits == (fit.tokens <= 60)
    assert not any(fit.fits for fit in fit_budget(Maps(), 256, milliseconds=0.0, repeats=2))
    with pytest.raises(ValueError, match="no budget"):
        fit_budget(Maps(), 256)


def test_tokens_that_cannot_be_counted_fit_no_budget_of_tokens(capsys) -> None:  # type: ignore[no-untyped-def]
    for fit in fit_budget(tiny(), 64, tokens=1000, repeats=2):
        assert (fit.tokens, fit.fits) == (None, False)
    assert all(fit.fits for fit in fit_budget(tiny(), 64, milliseconds=1e9, repeats=2))
    code, out, _ = says(capsys, f"{__name__}:tiny", "--sizes", "64", "--budget-tokens", "1000")
    assert code == 0
    assert "tokens unknown" in out
    assert "64 pixels: nothing is known to fit" in out


def test_a_budget_takes_rounds_and_refuses_what_it_would_not_heed(capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    for option in (["--size", "64"], ["--levels", "auto"], ["--prepared"], ["--plot", "a.svg"]):
        for budget in (["--budget-ms", "50"], ["--budget-tokens", "9"]):
            code, _, err = says(capsys, f"{__name__}:tiny", *option, *budget)
            assert code == 2
            assert err.count("\n") == 1
            assert option[0] in err
    rounds: list[int] = []

    def counted(runs, repeats):  # type: ignore[no-untyped-def]
        rounds.append(repeats)
        return {name: [1.0] for name in runs}

    monkeypatch.setattr("foveal.bench.interleaved", counted)
    budget = ["--sizes", "32", "--budget-ms", "50"]
    assert says(capsys, f"{__name__}:tiny", *budget, "--repeats", "3")[0] == 0
    assert says(capsys, f"{__name__}:tiny", *budget)[0] == 0
    assert rounds == [3, 7]


def test_the_middle_half_lies_within_what_was_measured() -> None:
    assert quartiles([1.0, 9.0]) == (3.0, 5.0, 7.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 100.0]) == (2.0, 3.0, 4.0)


@pytest.mark.parametrize("side", [16, 31])
def test_crop_and_resize_of_a_small_picture_are_no_larger_than_it(side) -> None:  # type: ignore[no-untyped-def]
    seen: list[tuple[int, ...]] = []

    class Seeing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(x.shape[-2:]))
            return x.mean((2, 3))

    rows = compare(Seeing(), [side], Setting(size=64, repeats=2, prepared=True))
    assert [row.cells for row in rows[:3]] == [side * side] * 3
    assert (side, side) in seen
    assert all(min(sides) > 0 for sides in seen)
    assert {sides for sides in seen if sides[0] not in (64, 0)} == {(side, side)}


def test_a_network_that_can_take_nothing_is_a_failure(capsys, tmp_path) -> None:  # type: ignore[no-untyped-def]
    plot = tmp_path / "a.svg"
    code, out, err = says(
        capsys, f"{__name__}:takes_nothing", "--sizes", "64", "--size", "32", "--repeats", "2", "--plot", str(plot)
    )
    assert code == 1
    assert out.count("cannot run") == 5
    assert err.count("\n") == 1
    assert "none of these sizes" in err
    assert not plot.exists()
    with pytest.raises(ValueError, match="none of the sizes tried"):
        fit_budget(takes_nothing(), 64, tokens=9)


def says(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["bench", *arguments])
    return code, *capsys.readouterr()


def test_the_command_prints_writes_and_draws(capsys, tmp_path) -> None:  # type: ignore[no-untyped-def]
    files = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.svg")]
    code, out, err = says(capsys, f"{__name__}:tiny", "--sizes", "64,128", "--size", "32", "--repeats", "2", *files)
    assert (code, err) == (0, "")
    assert out.count("fovea without halo") == 2
    rows = json.loads((tmp_path / "a.json").read_text())
    assert len(rows) == 10
    assert rows[3]["way"] == "fovea"
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    code, out, _ = says(capsys, f"{__name__}:Maps", "--sizes", "128", "--budget-tokens", "60")
    assert code == 0
    assert "128 pixels: --size" in out


def test_a_saved_model_is_measured_by_its_vision_side(capsys, tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = str(save_tiny_model(tmp_path / "model"))
    capsys.readouterr()  # a bar of Transformers
    code, out, err = says(capsys, folder, "--sizes", "128", "--size", "32", "--repeats", "2")
    assert (code, err) == (0, "")
    assert out.count("fovea") == 2
    assert "cannot run" not in out
    code, out, _ = says(capsys, folder, "--sizes", "128", "--budget-tokens", "20")
    assert code == 0
    assert "128 pixels: --size" in out


def test_the_command_refuses_in_one_line(capsys) -> None:  # type: ignore[no-untyped-def]
    for arguments, word in (
        (["timm:nothing"], "nothing"),
        ([f"{__name__}:tiny", "--sizes", "many"], "--sizes"),
        ([f"{__name__}:tiny", "--plot", "/nowhere/a.svg"], "no folder"),
        ([f"{__name__}:tiny", "--plot", "/nowhere/a.png"], ".svg"),
        ([f"{__name__}:tiny", "--size", "15"], "--size"),
        ([f"{__name__}:tiny", "--size", "15", "--levels", "2"], "even"),
    ):
        code, _, err = says(capsys, *arguments)
        assert code == 2
        assert err.count("\n") == 1
        assert word in err
    code, _, err = says(capsys, f"{__name__}:only_of_64", "--sizes", "64", "--size", "32", "--repeats", "2")
    assert code == 1
    assert "2 (Linear)" in err or "1 (Flatten)" in err


def test_a_plot_shows_every_curve_and_refuses_what_has_no_logarithm() -> None:
    drawing = loglog_plot({"a<b": [(1, 10), (100, 1000)], "left out": []}, title="t", across="x", up="y")
    assert "a&lt;b" in drawing
    assert "left out" not in drawing
    assert drawing.count("<circle") == 2
    assert ">1</text>" in drawing
    assert ">100</text>" in drawing
    for wrong in ({}, {"a": [(0.0, 1.0)]}, {"a": [(1.0, float("nan"))]}):
        with pytest.raises(ValueError, match="above 0"):
            loglog_plot(wrong, title="t", across="x", up="y")
