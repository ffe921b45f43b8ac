"""What the UEM predicted, from fabricated numbers."""

from reference_training.reporting.uncertainty_tables import uncertainty_tables
from tests.reference_training.fabricated import full, metrics


def test_uncertainty_table():
    table, sigma = uncertainty_tables(full())
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["snow"] == ("0.2000", "0.3000", "0.4000", "0.5000", "0.6000", "+1.00 ± 0.00")
    assert rows["fog"][-1] == "–"
    assert "in every seed for 18 of 19" in table.notes[0]
    assert "minimum −9.50" in sigma.text
    assert uncertainty_tables(metrics(vanilla=(0.5,))) == []
