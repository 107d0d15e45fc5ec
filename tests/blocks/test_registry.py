"""The registry of blocks: every name makes a block, has a docstring that says all, and is tested by the five checks."""

import doctest
import importlib
import inspect
import re

import pytest
import torch
from cases import gathered, modules_of_tests

import foveal.blocks.across_windows
import foveal.blocks.registry
from foveal.blocks.registry import FAMILIES, Block, create_block, find_block, list_blocks


def test_every_block_is_tested_and_nothing_else_is():
    """By cases, or, what does not make maps of maps, by tests of its own, in a module that names it so."""
    others = [name for module in modules_of_tests() for name in getattr(module, "NO_MAPS", ())]
    assert sorted([*gathered(), *others]) == list_blocks()


def test_every_family_has_one_that_the_ordinary_tests_check_in_full():
    heads = {find_block(name).family for name, found in gathered().items() if any(case.head for case in found)}
    assert heads == set(FAMILIES)


@pytest.mark.parametrize("name", list_blocks())
def test_its_docstring_says_what_a_user_needs(name):
    block = find_block(name)
    said = inspect.getdoc(block.make)
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name)
    assert block.origin in {"foveal", "torch", "torchvision", "timm", "kornia"}
    for part in ("Args:", "Parameters:", "Shapes:", "Use it", "Not ", "Example:"):
        assert part in said, f"{name}: {part!r} is missing from the docstring"
    assert re.search(r"\b(19|20)\d\d\b", said), f"{name}: no paper with its year"


@pytest.mark.parametrize(
    "name", [name for name in list_blocks() if "channels" in inspect.signature(find_block(name).make).parameters]
)
def test_maps_without_channels_are_refused(name):
    options = gathered()[name][0].options
    for wrong in (0, -1):
        channels = (4, wrong) if isinstance(options["channels"], tuple) else wrong  # of each map that it fuses
        with pytest.raises(ValueError, match=rf"channels.*{wrong}|{wrong}.*channels"):
            create_block(name, **{**options, "channels": channels})


def test_names_that_are_not_there_name_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean 'channel_gating'\?"):
        create_block("chanel_gating")
    with pytest.raises(TypeError, match=r"channel_gating: .*'width'.*it takes \(channels"):
        create_block("channel_gating", channels=8, width=3)
    with pytest.raises(ValueError, match="expected one of"):
        list_blocks(family="no such")


def test_patterns_and_families_choose():
    assert list_blocks("*") == sorted(list_blocks())
    for family in FAMILIES:
        assert set(list_blocks(family=family)) <= set(list_blocks())
    assert isinstance(find_block("channel_gating"), Block)


def test_the_examples_in_the_documentation_are_true():
    names = {"torch": torch}
    for module in (foveal.blocks.registry, foveal.blocks.across_windows):
        assert doctest.testmod(module, extraglobs=names).failed == 0
    for modules in FAMILIES.values():
        for module in modules:
            home = importlib.import_module(f"foveal.blocks.{module}")
            assert doctest.testmod(home, extraglobs=names | {"create_block": create_block}).failed == 0, module


def test_the_page_of_blocks_is_what_the_registry_holds():
    from listing import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/blocks/listing.py"
