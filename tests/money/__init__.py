"""A simulation of rented machines and their users: the ledger against the clouds' bills."""
