"""The parts of a report: finished runs read, their blocks, and the page with its figures."""
