"""The laptop's half: config, plan, connection, sync, pull, grading, ledger, command line."""
