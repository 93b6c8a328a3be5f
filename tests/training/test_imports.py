"""Packages whose members are imported when they are first used look as if they were whole."""

from __future__ import annotations


def test_packages_list_and_refuse_as_if_they_were_whole() -> None:
    import celldit.conditions
    import celldit.latent
    import celldit.tokenizers

    for package in (celldit.conditions, celldit.latent, celldit.tokenizers, celldit.data):
        assert set(package.__all__) <= set(dir(package))
        assert all(getattr(package, name) is not None for name in package.__all__)
        assert not hasattr(package, "nothing_of_this_name")
