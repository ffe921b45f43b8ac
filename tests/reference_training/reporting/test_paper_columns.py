"""The paper's numbers beside ours."""

from reference_training.reporting.paper_columns import paper_doubts


def test_doubts_of_the_papers_numbers_are_said():
    doubts = paper_doubts(["vanilla", "ulfd"])
    assert any(doubt.startswith("Table 1, Vanilla: HQ 76.82 does not fit") for doubt in doubts)
    assert not any("67.1" in doubt for doubt in doubts)  # that is of the other network
    assert paper_doubts(["mine"]) == []
