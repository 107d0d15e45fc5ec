"""The networks: what looks, what makes tokens of maps, what writes. Importing this registers them with Transformers."""

import inspect

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers import PreTrainedTokenizerFast as _Tokenizer

from foveal.models.center_focus import CenterFocusCNN
from foveal.models.configuration import MultiModalTransformerConfig
from foveal.models.image_tokenizer import ImageTokenizer
from foveal.models.multimodal import MultiModalTransformer
from foveal.models.processing import GlimpseProcessor, MultiModalProcessor

AutoConfig.register(MultiModalTransformerConfig.model_type, MultiModalTransformerConfig, exist_ok=True)
AutoModelForImageTextToText.register(MultiModalTransformerConfig, MultiModalTransformer, exist_ok=True)
_BACKENDS: dict[str, type] = {"torchvision": GlimpseProcessor, "pil": GlimpseProcessor}  # it needs neither
if "image_processor_classes" in inspect.signature(AutoImageProcessor.register).parameters:
    AutoImageProcessor.register(MultiModalTransformerConfig, image_processor_classes=_BACKENDS, exist_ok=True)
else:  # the first releases of Transformers 5 name one class by whether it is "slow"
    AutoImageProcessor.register(MultiModalTransformerConfig, slow_image_processor_class=GlimpseProcessor, exist_ok=True)
AutoTokenizer.register(MultiModalTransformerConfig, fast_tokenizer_class=_Tokenizer, exist_ok=True)
AutoProcessor.register(MultiModalTransformerConfig, MultiModalProcessor, exist_ok=True)

__all__ = [
    "CenterFocusCNN",
    "GlimpseProcessor",
    "ImageTokenizer",
    "MultiModalProcessor",
    "MultiModalTransformer",
    "MultiModalTransformerConfig",
]
