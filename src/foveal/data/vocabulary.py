"""The words that a caption set may use for its splits and its languages."""

import difflib
import re

SPLITS = ("train", "val", "test")
DEFAULT_SPLIT = "train"
DEFAULT_LANGUAGE = "en"

_OTHER_SPLIT_NAMES = {
    "training": "train",
    "restval": "train",  # Karpathy's splits: validation pictures of COCO that belong to training
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
}

_ISO_639_1 = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo
es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka
kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng
nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su
sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""

LANGUAGES = frozenset(_ISO_639_1.split())
"""ISO 639-1 codes."""

_OTHER_LANGUAGE_NAMES = {"english": "en", "eng": "en", "chinese": "zh", "cn": "zh", "jp": "ja"}


def normal_split(name: str) -> str:
    """Give a split its name here: `validation`, `valid` and `dev` are `val`, `restval` is `train`; others stay."""
    name = name.strip().lower()
    return _OTHER_SPLIT_NAMES.get(name, name)


def split_in(name: str) -> str | None:
    """Find a split in a file's or folder's name by its words: `captions_train2017` -> `train`, `dev-003` -> `val`."""
    words = (normal_split(word) for word in re.split(r"[^A-Za-z]+", name))
    return next((word for word in words if word in SPLITS), None)


def split_of_folders(folders: tuple[str, ...], *, default: str) -> str:
    """Tell the split from the folders that lead to a picture: the first that is called like a split, else `default`."""
    return next((split for split in map(normal_split, folders) if split in SPLITS), default)


def normal_language(code: str) -> str:
    """Give a language code as it is written here: lower case, no spaces around it."""
    return code.strip().lower()


def split_fault(split: str) -> str | None:
    """Say what is wrong with a split's name, or None."""
    if split in SPLITS:
        return None
    near = difflib.get_close_matches(split, [*SPLITS, *_OTHER_SPLIT_NAMES], n=1)
    hint = f"; did you mean {normal_split(near[0])!r}?" if near else ""
    return f"unknown split {split!r}; expected train, val or test{hint}"


def language_fault(code: str) -> str | None:
    """Say what is wrong with a language code, or None."""
    if code in LANGUAGES:
        return None
    base = re.split(r"[-_]", code)[0]
    near = _OTHER_LANGUAGE_NAMES.get(code) or (base if base in LANGUAGES else None)
    hint = f"; did you mean {near!r}?" if near else ""
    return f"unknown language {code!r}; expected a two-letter ISO 639-1 code such as 'en' or 'zh'{hint}"
