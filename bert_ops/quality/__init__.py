"""Data checks: Great Expectations suites over the artifacts between stages, and the reports about them."""
