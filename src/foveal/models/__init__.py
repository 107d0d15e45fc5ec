"""The networks: what looks, what tells tokens from maps, what writes. Importing this registers them with Transformers."""

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
AutoImageProcessor.register(MultiModalTransformerConfig, image_processor_classes=_BACKENDS, exist_ok=True)
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
