"""Feature maps to tokens: gated channels, covered cells dropped, every token told its place and its scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveal.blocks.channel_gating import ChannelGating
from foveal.layout import Layout

OCTAVES = 6


class ImageTokenizer(nn.Module):
    """Turns the maps of all windows of a picture into one set of tokens.

    A squeeze-excite gate over the channels (Hu et al. 2018), a projection, and a learned embedding of where each cell
    lies and how much of the picture it spans, continuous in both, so that any layout and any number of levels has one.
    Cells that a finer window covers and cells outside the picture become no token.

    Args:
        channels: C of the feature maps.
        dim: D of the tokens.

    Example:
        >>> layout = Layout.foveal(picture=(256, 256), size=64, levels=3)
        >>> tokens, mask = ImageTokenizer(8, 16)(torch.rand(1, 3, 8, 4, 4), layout)
        >>> tokens.shape, bool(mask.all())
        (torch.Size([1, 40, 16]), True)
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.gate = ChannelGating(channels)
        self.project = nn.Linear(channels, dim)
        self.norm = nn.LayerNorm(dim)
        self.place = nn.Sequential(nn.Linear(4 * OCTAVES + 3, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, features: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """The tokens of every picture, those of its finest windows first.

        Args:
            features: (B, K, C, n, n).
            layout: of the same windows.

        Returns:
            tokens: (B, N, D).
            mask: (B, N) bool, False where a place only fills the batch.

        Raises:
            ValueError: if the maps are not those of the layout's windows.
        """
        expected = layout.num_windows, self.project.in_features
        if features.ndim != 5 or features.shape[1:3] != expected:
            raise ValueError(
                f"features have shape {tuple(features.shape)}; expected (B, {expected[0]}, {expected[1]}, n, n): "
                f"a map for each window of the layout"
            )
        batch, windows, channels, n, _ = features.shape
        gate = self.gate.gate(features.flatten(0, 1), layout).to(features.dtype)
        index, mask = (rows.to(features.device).expand(batch, -1) for rows in layout.tokens(n))
        cells = features.permute(0, 1, 3, 4, 2).reshape(batch, windows * n * n, channels)
        cells = cells.gather(1, index[..., None].expand(-1, -1, channels)) * gate[:, None]
        places = self._places(layout, n).to(features.device, self.project.weight.dtype)
        places = places.expand(batch, -1, -1).gather(1, index[..., None].expand(-1, -1, places.shape[-1]))
        return self.norm(self.project(cells)) + self.place(places), mask

    def _places(self, layout: Layout, n: int) -> Tensor:
        """(B, K * n * n, 4 * OCTAVES + 3): Fourier features of each cell's centre, its centre and its scale."""

        def compute() -> Tensor:
            sides = layout.pictures.double()
            longer = sides.amax(1)
            centre = layout.cell_places(n) - sides[:, None, None, None] / 2
            centre = centre / (longer / 2)[:, None, None, None, None]  # in [-1, 1] inside the picture
            octave = torch.exp2(torch.arange(OCTAVES, dtype=torch.float64, device=centre.device)) * torch.pi / 2
            phase = (centre[..., None] * octave).flatten(-2)
            scale = torch.log2(layout.cell_pixels(n) / longer[:, None]) + 4  # 0 where 16 cells span the picture
            scale = scale[..., None, None, None].expand(*centre.shape[:-1], 1)
            return torch.cat([phase.sin(), phase.cos(), centre, scale / 4], -1).flatten(1, 3).float()

        return layout.remembered(("places", n), compute)
