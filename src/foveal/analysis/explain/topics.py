"""The pages of `foveal explain` by their names."""

from __future__ import annotations

import difflib
import importlib
import re

from foveal.analysis.explain.page import Page, Table

LANGUAGES = ("en", "zh")

TOPICS = {
    "kernel": ("what a larger kernel costs, and who uses it", "大卷积核要付多少代价，谁在用"),
    "stride": ("how the map shrinks, and which pixels nobody reads", "图怎样变小，哪些像素没人读"),
    "padding": ("what lies beside the picture", "图像边界之外补什么"),
    "pooling": ("what each way of pooling leaves of a peak", "各种池化把一个峰值变成什么"),
    "receptive-field": ("how far a cell sees", "一个单元能看多远"),
    "sharing": ("a convolution against the fully connected layer it replaces", "卷积与它取代的全连接层"),
    "convolutions": ("the kinds of convolution by cost and field", "各种卷积的开销与感受野"),
    "filters": ("what classical kernels do to an edge", "经典滤波器怎样对待边缘"),
}
"""Topic -> a line about it, in English and Chinese."""


def explain(topic: str, language: str = "en") -> Page:
    """Makes a page: every number on it is computed now, by modules that are built and run.

    Args:
        topic: one of `TOPICS`.
        language: "en" or "zh".

    Raises:
        ValueError: for a topic or a language that there is not.

    Example:
        >>> explain("kernel").tables[0].rows[1][:2]
        ('3 x 3', '1,792')
    """
    if topic not in TOPICS:
        near = difflib.get_close_matches(topic, TOPICS, 1, 0.5)
        hint = f"did you mean {near[0]!r}? There are" if near else "there are"
        raise ValueError(f"no topic is called {topic!r}; {hint} {', '.join(TOPICS)}")
    refuse_language(language)
    module = importlib.import_module(f"foveal.analysis.explain.{topic.replace('-', '_')}")
    page: Page = module.page(language)
    return _with_times_signs(page) if language == "zh" else page


def _with_times_signs(page: Page) -> Page:
    """Sizes as Chinese texts write them, 3×3 for 3 x 3; the modules write theirs once for all languages."""

    def written(text: str) -> str:
        return re.sub(r"(?<=\d) x(?: (?=\d)|$)", "×", text)

    tables = tuple(
        Table(
            written(table.title),
            tuple(map(written, table.columns)),
            tuple(tuple(map(written, row)) for row in table.rows),
            table.align,
            written(table.note),
        )
        for table in page.tables
    )
    return Page(written(page.title), written(page.text), tables, written(page.lesson))


def topic_list(language: str = "en") -> list[tuple[str, str]]:
    """Every topic with a line about it.

    Raises:
        ValueError: for a language that there is not.
    """
    refuse_language(language)
    return [(topic, lines[LANGUAGES.index(language)]) for topic, lines in TOPICS.items()]


def refuse_language(language: str) -> None:
    """Raises a ValueError for a language in which there are no pages."""
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r}: the pages are written in {', '.join(LANGUAGES)}")
