"""References are found in docstrings as people write them."""

from tumortwin.cli_cite import Reference, found_in


def test_one_line_several_lines_and_lists():
    assert found_in("Text.\n\n**Reference:** Swanson et al. 2000,\n  Cell Prolif. 33:317.\n\nMore.") == [
        "Swanson et al. 2000, Cell Prolif. 33:317."
    ]
    assert found_in("**References:**\n- A 2001.\n- B 2002,\n  p. 3.\n\n**Good values:** 3") == [
        "A 2001.",
        "B 2002, p. 3.",
    ]
    assert found_in("**Reference:** A 2001; B 2002.") == ["A 2001", "B 2002."]
    assert found_in("No such thing.") == [] and found_in(None) == []


def test_two_works_of_an_author_in_a_year_have_keys_of_their_own():
    entry = Reference("Kidger, thesis, Oxford 2021.", ["x"])
    assert (entry.key, entry.bibtex().split(",")[0], entry.bibtex(1).split(",")[0]) == (
        "kidger2021", "@misc{kidger2021", "@misc{kidger2021b"
    )  # fmt: skip


def test_bibtex_has_year_and_doi():
    entry = Reference("Stupp et al. 2005, NEJM 352:987, doi:10.1056/NEJMoa043330.", ["x"]).bibtex()
    assert entry.startswith("@misc{stupp2005,") and "year = {2005}" in entry and "doi = {10.1056/NEJMoa043330}" in entry
