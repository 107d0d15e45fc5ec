"""A vision transformer that takes glimpses: attention takes tokens from anywhere, so its parts are called in turn."""

from __future__ import annotations

from typing import Any

from foveal.convert.foveated import Foveated, refuse_unseen
from foveal.convert.timm_transformer import (
    is_timm_features,
    is_timm_transformer,
    timm_features,
    timm_head,
    timm_intermediates,
    timm_maps,
)
from foveal.convert.torchvision_transformer import torchvision_features, torchvision_head
from foveal.convert.transformer import Tokens, refuse_skipped_hooks
from foveal.convert.window_maps import UnsupportedModule
from foveal.retina import Glimpse


class FoveatedTransformer(Foveated):
    """A vision transformer that takes glimpses; made by `foveate`."""

    def forward(self, glimpse: Glimpse, *args: Any, **kwargs: Any) -> Any:
        """What the network returns for a picture, from a glimpse of it: (B, ...), or a list of maps (B, K, C, n, n)."""
        refuse_unseen(glimpse)
        _refuse_arguments(args, kwargs)
        refuse_skipped_hooks("the network itself", self.network)
        if is_timm_features(self.network):
            return timm_maps(self.network, glimpse.pixels.flatten(0, 1), glimpse.layout)
        tokens = self._tokens(glimpse)
        return (timm_head if is_timm_transformer(self.network) else torchvision_head)(self.network, tokens)

    def forward_features(self, glimpse: Glimpse, *args: Any, **kwargs: Any) -> Any:
        """(B, P + N, D): the prefix tokens, once a picture, then those of `glimpse.layout.tokens(S / patch)`."""
        refuse_unseen(glimpse)
        _refuse_arguments(args, kwargs)
        return self._tokens(glimpse).values

    def forward_intermediates(self, glimpse: Glimpse, indices: Any = None, **kwargs: Any) -> Any:
        """Of timm's transformers: (B, P + N, D) of the end, and a list of maps (B, K, D, n, n), 0 where no token is.

        Args:
            glimpse: of any layout.
            indices: of the blocks; the last n for a number, all for None.
            kwargs: `norm`, to normalise the maps as the end is; `intermediates_only`, to return the list alone.
        """
        if not is_timm_transformer(self.network):
            raise UnsupportedModule(f"the network itself ({type(self.network).__name__}): has no forward_intermediates")
        refuse_unseen(glimpse)
        norm, alone = kwargs.pop("norm", False), kwargs.pop("intermediates_only", False)
        _refuse_arguments((), kwargs)
        pixels, layout = glimpse.pixels.flatten(0, 1), glimpse.layout
        end, maps = timm_intermediates(self.network, pixels, layout, indices, norm=norm, stop_early=alone)
        return maps if alone else (end, maps)

    def _tokens(self, glimpse: Glimpse) -> Tokens:
        features = timm_features if is_timm_transformer(self.network) else torchvision_features
        return features(self.network, glimpse.pixels.flatten(0, 1), glimpse.layout, self.pool)


def _refuse_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if args or kwargs:
        raise TypeError(f"a foveated transformer takes a glimpse alone; got {len(args) + len(kwargs)} arguments more")
