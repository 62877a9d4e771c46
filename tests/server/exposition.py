"""Reads what Prometheus reads."""

from prometheus_client.parser import text_string_to_metric_families


class Exposition:
    """The metrics of one answer of `/metrics`."""

    def __init__(self, text):
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [s for family in self.families.values() for s in family.samples]

    def total(self, name, **labels):
        """The sum of all samples of that name with at least these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def values(self, label):
        """All values that a label has."""
        return {sample.labels[label] for sample in self.samples if label in sample.labels}


def scrape(client):
    """The metrics of a service."""
    return Exposition(client.get("/metrics").text)
