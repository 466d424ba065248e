"""The tests, cheapest first; `make test` runs them all."""
